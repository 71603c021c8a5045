"""The files of a run, and safe loading."""
