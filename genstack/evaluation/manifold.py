"""How two sets cover each other: precision and recall (Kynkäänniemi et al. 2019, arXiv:1904.06991).

Density and coverage (Naeem et al. 2020, arXiv:2002.09797) are less easily fooled by single far images.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.evaluation.resampling import SEED

MOST = 10_000  # images of each set that are looked at; all pairs of them are compared
ROWS = 512  # that are compared at a time
NEIGHBOURS, DENSE_NEIGHBOURS = 3, 5  # as the two papers have it


@dataclass(frozen=True)
class Covering:
    """One number for each image; their means are the four metrics.

    Args:
        precision: of each fake image, whether it lies as near to some real one as that one's neighbours do.
        recall: of each real image, whether it lies so near to some fake one.
        density: of each fake image, in how many real ones' neighbourhoods it lies, over the neighbours.
        coverage: of each real image, whether a fake one lies in its neighbourhood.
    """

    precision: Float[Tensor, " m"]
    recall: Float[Tensor, " n"]
    density: Float[Tensor, " m"]
    coverage: Float[Tensor, " n"]


def covering(real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"]) -> Covering:
    """How a set of fake images covers a set of real ones, and is covered."""
    real, fake = some(real.double()), some(fake.double())
    near, dense = radii(real, NEIGHBOURS, DENSE_NEIGHBOURS)
    (fake_near,) = radii(fake, NEIGHBOURS)
    inside = torch.zeros(len(fake), dtype=torch.bool)
    neighbourhoods = torch.zeros(len(fake), dtype=torch.float64)
    recall, coverage = [], []
    for rows, radius, dense_radius in zip(real.split(ROWS), near.split(ROWS), dense.split(ROWS), strict=True):
        distances = torch.cdist(rows, fake)
        inside |= (distances <= radius[:, None]).any(0)
        dense_inside = distances < dense_radius[:, None]
        neighbourhoods += dense_inside.sum(0)
        coverage.append(dense_inside.any(1))
        recall.append((distances <= fake_near).any(1))
    return Covering(
        inside.double(),
        torch.cat(recall).double(),
        neighbourhoods / DENSE_NEIGHBOURS,
        torch.cat(coverage).double(),
    )


def radii(features: Float[Tensor, "n d"], *neighbours: int) -> list[Float[Tensor, " n"]]:
    """The distance from each to its k-th nearest other one, for each k."""
    found = []
    for first in range(0, len(features), ROWS):
        distances = torch.cdist(features[first : first + ROWS], features)
        # one is always nearest to itself, whatever rounding has made of that distance
        distances.fill_diagonal_(-1) if first == 0 else distances[:, first:].fill_diagonal_(-1)
        found.append(torch.stack([distances.kthvalue(k + 1, dim=1).values for k in neighbours]))
    return list(torch.cat(found, dim=1))


def some(features: Float[Tensor, "n d"]) -> Float[Tensor, "k d"]:
    """All of them, or MOST at random."""
    if len(features) <= MOST:
        return features
    return features[torch.randperm(len(features), generator=torch.Generator().manual_seed(SEED))[:MOST]]
