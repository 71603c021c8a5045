"""Tabs of the page, one file each: `supports(run)`, and `build`, which places its widgets.

Tabs of one run are built with its `RunPage`, comparisons with all runs that they support.
"""
