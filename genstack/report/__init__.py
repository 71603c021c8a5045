"""The report of a run: one HTML page with its data, settings, curves, images and metrics.

Each file computes one section as plain data; `page.py` renders them with the templates beside it.
A section that cannot be shown is `Missing`, with the reason.
"""
