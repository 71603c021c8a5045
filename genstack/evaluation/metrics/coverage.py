"""Precision and recall (Kynkäänniemi et al. 2019, arXiv:1904.06991) and density and coverage.

Density and coverage (Naeem et al. 2020, arXiv:2002.09797) are less sensitive to outliers.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.evaluation.metrics.intervals import SEED

MAX_IMAGES = 10_000  # of each set; all pairs are compared
ROWS = 512  # compared at a time
NEIGHBOURS, DENSITY_NEIGHBOURS = 3, 5  # the papers' values


@dataclass(frozen=True)
class Coverage:
    """Values per image; their means are the four metrics.

    Args:
        precision: 1 for each generated image within the radius of some real image.
        recall: 1 for each real image within the radius of some generated image.
        density: number of real images whose radius holds each generated image, divided by the neighbours.
        coverage: 1 for each real image whose radius holds some generated image.
    """

    precision: Float[Tensor, " m"]
    recall: Float[Tensor, " n"]
    density: Float[Tensor, " m"]
    coverage: Float[Tensor, " n"]


def coverage(
    real: Float[Tensor, "n d"], generated: Float[Tensor, "m d"], limit: int | None = MAX_IMAGES
) -> Coverage:
    """Compare two sets of features, or at most `limit` of each, by radii of nearest neighbours."""
    real, generated = subset(real.double(), limit), subset(generated.double(), limit)
    near, dense = radii(real, NEIGHBOURS, DENSITY_NEIGHBOURS)
    (generated_near,) = radii(generated, NEIGHBOURS)
    precise = torch.zeros(len(generated), dtype=torch.bool)
    density = torch.zeros(len(generated), dtype=torch.float64)
    recalled, covered = [], []
    for rows, radius, dense_radius in zip(real.split(ROWS), near.split(ROWS), dense.split(ROWS), strict=True):
        distances = torch.cdist(rows, generated)
        precise |= (distances <= radius[:, None]).any(0)
        inside = distances < dense_radius[:, None]
        density += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((distances <= generated_near).any(1))
    return Coverage(
        precise.double(),
        torch.cat(recalled).double(),
        density / DENSITY_NEIGHBOURS,
        torch.cat(covered).double(),
    )


def radii(features: Float[Tensor, "n d"], *neighbours: int) -> list[Float[Tensor, " n"]]:
    """Return the distance from each image to its k-th nearest other image, for each k."""
    found = []
    for first in range(0, len(features), ROWS):
        distances = torch.cdist(features[first : first + ROWS], features)
        # rounding must not make another image nearer than the image itself
        distances.fill_diagonal_(-1) if first == 0 else distances[:, first:].fill_diagonal_(-1)
        found.append(torch.stack([distances.kthvalue(k + 1, dim=1).values for k in neighbours]))
    return list(torch.cat(found, dim=1))


def subset(features: Float[Tensor, "n d"], limit: int | None) -> Float[Tensor, "k d"]:
    """Return all features, or `limit` of them at random."""
    if limit is None or len(features) <= limit:
        return features
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(SEED))
    return features[order[:limit]]
