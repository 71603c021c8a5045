"""Losses of compressors: reconstruction, perceptual distance, adversary."""
