"""The report of a run: one HTML page that says what was trained on what, and shows how well it went.

Each file finds out one section of the page as plain data, `page.py` lays them out by the templates beside it.
What cannot be shown is `Absent`, with the reason in a sentence.
"""
