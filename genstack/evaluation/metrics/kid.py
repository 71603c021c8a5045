"""Kernel inception distance, KID (Binkowski et al. 2018, arXiv:1801.01401), in float64."""

from math import ceil

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.evaluation.metrics.intervals import SEED, Interval, bootstrap_counts, percentile_interval

BLOCK_SIZE = 4096  # images whose kernel matrix fits in memory
RESAMPLES = 400


def kid(real: Float[Tensor, "n d"], generated: Float[Tensor, "m d"]) -> tuple[float, Interval]:
    """Return the unbiased estimate of the squared distance, which may be negative, and its interval.

    Larger sets are split at random into blocks of at most BLOCK_SIZE images, whose estimates are averaged.
    Bootstrap resamples leave out pairs of an image with itself; near 0 the interval is too wide rather than
    too narrow.
    """
    blocks = ceil(max(len(real), len(generated)) / BLOCK_SIZE)
    generator = torch.Generator().manual_seed(SEED)
    shuffled = [each.double()[torch.randperm(len(each), generator=generator)] for each in (real, generated)]
    pairs = zip(*(each.tensor_split(blocks) for each in shuffled), strict=True)
    estimates = torch.stack([block_estimates(*pair) for pair in pairs]).mean(0)
    return float(estimates[0]), percentile_interval(estimates[1:])


def block_estimates(
    real: Float[Tensor, "n d"], generated: Float[Tensor, "m d"]
) -> Float[Tensor, " estimates"]:
    """Return the estimate of one block, then the estimates of its resamples."""
    counts, counts2 = (  # the first column counts each image once
        torch.cat(
            [torch.ones(len(each), 1, dtype=torch.float64), bootstrap_counts(len(each), RESAMPLES, seed)], 1
        )
        for seed, each in enumerate((real, generated))
    )
    across = (counts * (kernel(real, generated) @ counts2)).sum(0) / (counts.sum(0) * counts2.sum(0))
    return mean_kernel(real, counts) + mean_kernel(generated, counts2) - 2 * across


def mean_kernel(features: Float[Tensor, "n d"], counts: Float[Tensor, "n r"]) -> Float[Tensor, " r"]:
    """Return the mean kernel of pairs of different images of a set, for each resample."""
    values = kernel(features, features)
    values.fill_diagonal_(0)
    pairs = counts.sum(0).square() - counts.square().sum(0)
    return (counts * (values @ counts)).sum(0) / pairs


def kernel(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Polynomial kernel (x y / d + 1)^3."""
    return (x @ y.T / x.shape[1] + 1) ** 3
