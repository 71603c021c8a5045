"""Formats to hand models on in, one file each; a new class of `Export` here is all that a new one needs."""
