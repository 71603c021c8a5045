"""Confidence intervals: percentiles of the bootstrap (Efron 1979), and the grouped jackknife."""

from collections.abc import Callable, Sequence
from math import isfinite, sqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor

RESAMPLES = 1000
GROUPS = 10
CONFIDENCE = 0.95
DEVIATIONS = 1.96  # standard deviations on either side that hold CONFIDENCE of a normal distribution
SEED = 0  # fixed, so that repeated evaluations give equal cards

Interval = tuple[float, float]


def bootstrap_indices(
    count: int, resamples: int = RESAMPLES, seed: int = SEED
) -> Int[Tensor, "resamples count"]:
    """Sample indices below `count` with replacement."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(count, (resamples, count), generator=generator)


def bootstrap_counts(count: int, resamples: int, seed: int = SEED) -> Float[Tensor, "count resamples"]:
    """Count how often each index occurs in each resample."""
    counts = torch.zeros(count, resamples, dtype=torch.float64)
    ones = torch.ones(count, dtype=torch.float64)
    for column, indices in enumerate(bootstrap_indices(count, resamples, seed)):
        counts[:, column].index_add_(0, indices, ones)
    return counts


def percentile_interval(estimates: Float[Tensor, " resamples"]) -> Interval:
    """Return the central interval that holds CONFIDENCE of the estimates."""
    tail = (1 - CONFIDENCE) / 2
    ordered = estimates.sort().values
    last = len(ordered) - 1
    return float(ordered[round(tail * last)]), float(ordered[round((1 - tail) * last)])


def mean_interval(values: Float[Tensor, " n"]) -> Interval:
    """Return the bootstrap interval of a mean over images."""
    values = values.double()
    return percentile_interval(
        torch.stack([values[indices].mean() for indices in bootstrap_indices(len(values))])
    )


def jackknife_interval(
    estimate: Callable[..., float], sets: Sequence[Float[Tensor, "_ d"]], groups: int = GROUPS
) -> Interval:
    """Return the interval of an estimate by leaving out each group of images in turn.

    It suits estimates that are expensive or that repeated images would bias, such as a Fréchet distance.
    """
    value = estimate(*sets)
    partial = [
        estimate(*(one[torch.arange(len(one)) % groups != group] for one in sets)) for group in range(groups)
    ]
    mean = sum(partial) / groups
    error = sqrt((groups - 1) / groups * sum((each - mean) ** 2 for each in partial))
    return (value - DEVIATIONS * error, value + DEVIATIONS * error) if isfinite(error) else (value, value)
