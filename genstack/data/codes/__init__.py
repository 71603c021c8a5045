"""Archives of codes: their files, encoding, and training data."""
