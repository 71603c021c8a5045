"""Metrics as functions of tensors, one file each."""
