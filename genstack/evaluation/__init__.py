"""Evaluation: measure sets of images once, then compute every number from two sets of measurements."""
