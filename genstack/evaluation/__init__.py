"""Metrics of compressors and samples."""
