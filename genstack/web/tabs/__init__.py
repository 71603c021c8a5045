"""Tabs of the page, one file each: `supports(run)`, and `build(run, space)`, which places its widgets."""
