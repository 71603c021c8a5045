"""How sure a number is: percentile intervals of the bootstrap (Efron 1979), and the jackknife by groups."""

from collections.abc import Callable, Sequence
from math import isfinite, sqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor

RESAMPLES = 1000
GROUPS = 10
LEVEL = 0.95
DEVIATIONS = 1.96  # of a normal distribution, to either side, that hold LEVEL of it
SEED = 0  # a card says the same each time it is made

Interval = tuple[float, float]


def draws(count: int, resamples: int = RESAMPLES, seed: int = SEED) -> Int[Tensor, "resamples count"]:
    """Numbers below `count`, drawn with replacement."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(count, (resamples, count), generator=generator)


def weights(count: int, resamples: int, seed: int = SEED) -> Float[Tensor, "count resamples"]:
    """How often each of `count` things is drawn in each resample."""
    counts = torch.zeros(count, resamples, dtype=torch.float64)
    ones = torch.ones(count, dtype=torch.float64)
    for column, numbers in enumerate(draws(count, resamples, seed)):
        counts[:, column].index_add_(0, numbers, ones)
    return counts


def percentiles(estimates: Float[Tensor, " resamples"]) -> Interval:
    """The middle of the estimates, as much of it as LEVEL says."""
    tail = (1 - LEVEL) / 2
    ordered = estimates.sort().values
    last = len(ordered) - 1
    return float(ordered[round(tail * last)]), float(ordered[round((1 - tail) * last)])


def of_mean(values: Float[Tensor, " n"]) -> Interval:
    """The interval of a mean over images."""
    values = values.double()
    return percentiles(torch.stack([values[numbers].mean() for numbers in draws(len(values))]))


def by_groups(
    estimate: Callable[..., float], sets: Sequence[Float[Tensor, "_ d"]], groups: int = GROUPS
) -> Interval:
    """The interval of an estimate from sets of images, by leaving out a part of each set in turn.

    For estimates that are dear, or that repeated images would bias, as the bootstrap does a Fréchet distance.
    """
    whole = estimate(*sets)
    left = [
        estimate(*(one[torch.arange(len(one)) % groups != group] for one in sets)) for group in range(groups)
    ]
    mean = sum(left) / groups
    error = sqrt((groups - 1) / groups * sum((each - mean) ** 2 for each in left))
    return (whole - DEVIATIONS * error, whole + DEVIATIONS * error) if isfinite(error) else (whole, whole)
