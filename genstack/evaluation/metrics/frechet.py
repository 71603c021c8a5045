"""Fréchet distance between two sets of features (Heusel et al. 2017, arXiv:1706.08500), in float64."""

import torch
from jaxtyping import Float
from torch import Tensor

MIN_IMAGES = 2048  # the distance is biased upwards, the more the smaller the sets


def frechet_distance(real: Float[Tensor, "n d"], generated: Float[Tensor, "m d"]) -> float:
    """|mean - mean'|^2 + tr(S + S' - 2 (S S')^(1/2)) of normal distributions fitted to the two sets.

    The trace of the root is the sum of the singular values of S^(1/2) S'^(1/2). This form needs no complex
    numbers and tolerates features of deficient rank.
    """
    return moments_distance(moments(real), moments(generated))


#: A mean, and a root of the covariance.
Moments = tuple[Float[Tensor, " d"], Float[Tensor, "d _"]]


def moments_distance(one: Moments, other: Moments) -> float:
    """Return the distance of two normal distributions from their means and roots of their covariances."""
    (mean, root), (mean2, root2) = one, other
    traces = root.square().sum() + root2.square().sum()
    overlap = torch.linalg.svdvals(root.T @ root2).sum()
    return max(0.0, float((mean - mean2).square().sum() + traces - 2 * overlap))


def moments(features: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d k"]]:
    """Return the mean and a root R of the sample covariance S = R R^T (divided by n - 1)."""
    features = features.double()
    mean = features.mean(0)
    centred = (features - mean) / max(1, len(features) - 1) ** 0.5
    if len(features) <= features.shape[1]:
        return mean, centred.T
    return mean, covariance_root(centred.T @ centred)


def covariance_root(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """Return a root R of a covariance S = R R^T."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()
