"""Fréchet distance between two sets of features (Heusel et al. 2017, arXiv:1706.08500), in float64."""

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.errors import UserError

FEWEST = 2048  # images; the distance is biased upwards, the more the fewer there are


def frechet(one: Float[Tensor, "n d"], other: Float[Tensor, "m d"]) -> float:
    """|mean - mean'|^2 + tr(S + S' - 2 (S S')^(1/2)) of two normal distributions with the sets' moments.

    The trace of the root is the sum of the singular values of S^(1/2) S'^(1/2), so that no complex number
    appears and features of deficient rank do no harm.
    """
    (mean, root), (mean2, root2) = moments(one), moments(other)
    traces = root.square().sum() + root2.square().sum()
    overlap = torch.linalg.svdvals(root.T @ root2).sum()
    return max(0.0, float((mean - mean2).square().sum() + traces - 2 * overlap))


def moments(features: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d k"]]:
    """The mean, and a root R of the covariance S = R R^T, which is divided by n - 1 as everybody does."""
    features = features.double()
    mean = features.mean(0)
    centred = (features - mean) / max(1, len(features) - 1) ** 0.5
    if len(features) <= features.shape[1]:
        return mean, centred.T
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    return mean, vectors * values.clamp(min=0).sqrt()


def check_count(name: str, instead: str, *counts: int) -> None:
    """Refuse a Fréchet distance between sets that are too small for it.

    Raises:
        UserError: one has fewer than 2,048 images.
    """
    if min(counts) < FEWEST:
        raise UserError(
            f"{name} needs {FEWEST:,} images on either side, and there are {min(counts):,}; {instead} holds "
            f"for few images, too"
        )
