"""Kernel distance between two sets of features: KID (Binkowski et al. 2018, arXiv:1801.01401), in float64."""

from math import ceil

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.evaluation.resampling import SEED, Interval, percentiles, weights

MOST = 4096  # images of one block, whose kernels are held in memory
RESAMPLES = 400


def kid(one: Float[Tensor, "n d"], other: Float[Tensor, "m d"]) -> tuple[float, Interval]:
    """The unbiased estimate of the squared distance (it may be negative), and its bootstrap interval.

    Beyond MOST images, the sets are cut into blocks at random and the estimate is the mean over these. A
    resample weighs images and leaves out pairs of one image with itself; near 0 its interval is too wide
    rather than too narrow.
    """
    blocks = ceil(max(len(one), len(other)) / MOST)
    generator = torch.Generator().manual_seed(SEED)
    shuffled = [each.double()[torch.randperm(len(each), generator=generator)] for each in (one, other)]
    parts = zip(*(each.tensor_split(blocks) for each in shuffled), strict=True)
    estimates = torch.stack([block(*pair) for pair in parts]).mean(0)
    return float(estimates[0]), percentiles(estimates[1:])


def block(one: Float[Tensor, "n d"], other: Float[Tensor, "m d"]) -> Float[Tensor, " estimates"]:
    """The estimate of one block, and those of its resamples."""
    mine, theirs = (  # all images once, and then as they are drawn, from each set for itself
        torch.cat([torch.ones(len(each), 1, dtype=torch.float64), weights(len(each), RESAMPLES, seed)], 1)
        for seed, each in enumerate((one, other))
    )
    across = (mine * (polynomial(one, other) @ theirs)).sum(0) / (mine.sum(0) * theirs.sum(0))
    return within(one, mine) + within(other, theirs) - 2 * across


def within(features: Float[Tensor, "n d"], counts: Float[Tensor, "n r"]) -> Float[Tensor, " r"]:
    """The mean kernel of two different images of a set, for each weighing of its images."""
    kernel = polynomial(features, features)
    kernel.fill_diagonal_(0)
    pairs = counts.sum(0).square() - counts.square().sum(0)
    return (counts * (kernel @ counts)).sum(0) / pairs


def polynomial(one: Float[Tensor, "n d"], other: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """(x y / d + 1)^3."""
    return (one @ other.T / one.shape[1] + 1) ** 3
