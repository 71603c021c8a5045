"""Codes made once and kept: archives on disk, how they are written, and training on them."""
