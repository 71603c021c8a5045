"""Tabs of the page, one file each: `offered(run)`, and `build(run, space)`, which places its widgets."""
