"""genstack: train compressors, train priors, sample images."""

__version__ = "0.1.0"
