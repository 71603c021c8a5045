"""CMMD: maximum mean discrepancy with a Gaussian kernel (Jayasumana et al. 2024, arXiv:2401.09603)."""

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.evaluation.metrics.intervals import Interval, bootstrap_counts, percentile_interval

SIGMA, SCALE = 10.0, 1000.0  # of the paper: the kernel's width for features of unit length, and a factor
ROWS = 1024  # of a kernel matrix at a time
RESAMPLES = 200


def mmd(
    real: Float[Tensor, "n d"], generated: Float[Tensor, "m d"], sigma: float = SIGMA
) -> tuple[float, Interval]:
    """Return 1000 times the squared discrepancy of two sets, and its bootstrap interval.

    It is the biased estimate of the authors' code, whose means include each image with itself, so it is
    never negative.
    """
    sets = real.double(), generated.double()
    counts = [
        torch.cat(
            [torch.ones(len(each), 1, dtype=torch.float64), bootstrap_counts(len(each), RESAMPLES, seed)], 1
        )
        for seed, each in enumerate(sets)
    ]
    within = [mean_kernel(each, each, count, count, sigma) for each, count in zip(sets, counts, strict=True)]
    across = mean_kernel(sets[0], sets[1], counts[0], counts[1], sigma)
    estimates = SCALE * (within[0] + within[1] - 2 * across)
    return float(estimates[0]), percentile_interval(estimates[1:])


def mean_kernel(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    x_counts: Float[Tensor, "n r"],
    y_counts: Float[Tensor, "m r"],
    sigma: float,
) -> Float[Tensor, " r"]:
    """Mean of exp(-|x - y|^2 / (2 sigma^2)) over all pairs, for each resample."""
    total = torch.zeros(x_counts.shape[1], dtype=torch.float64)
    for rows, weights in zip(x.split(ROWS), x_counts.split(ROWS), strict=True):
        distances = torch.cdist(rows, y, compute_mode="donot_use_mm_for_euclid_dist").square()
        total += (weights * ((distances / (-2 * sigma**2)).exp() @ y_counts)).sum(0)
    return total / (x_counts.sum(0) * y_counts.sum(0))
