"""genstack: train compressors, train priors, sample images."""
