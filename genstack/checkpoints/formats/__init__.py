"""Published formats, one file per project; a new class of `Format` here is all that a new format needs."""
