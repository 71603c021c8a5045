"""Order of sampling: raster, random, spread by a Halton sequence, or most confident first."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import ClassVar, Literal, final

import numpy as np
import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from genstack.errors import UserError
from genstack.layout import Layout


class Order(ABC):
    """Order in which masked codes are kept. Subclasses are frozen dataclasses."""

    #: Confidence in a sampled code: its log-probability, or its logit.
    score: Literal["probability", "logit"] = "probability"
    #: True for an order that reads the noise of the first step in all steps.
    first_noise: ClassVar[bool] = False

    @abstractmethod
    def priority(
        self,
        layout: Layout,
        confidence: Float[Tensor, "b n"],
        noise: Float[Tensor, "b n"],
        remaining: float,
    ) -> Float[Tensor, "b n"]:
        """Priority of each code; codes with the highest priority are kept first.

        Args:
            layout: layout of the codes.
            confidence: `score` of the code sampled at each position.
            noise: a number in [0, 1) per position, drawn anew in each step; see `first_noise`.
            remaining: share of the steps after this one.
        """


class FixedOrder(Order):
    """An order that does not depend on the sampled codes."""

    @abstractmethod
    def ranks(self, layout: Layout, noise: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Rank of each code in the order, from 0; `noise` is a number in [0, 1) per position."""

    @final
    def priority(
        self,
        layout: Layout,
        confidence: Float[Tensor, "b n"],
        noise: Float[Tensor, "b n"],
        remaining: float,
    ) -> Float[Tensor, "b n"]:
        return -self.ranks(layout, noise)


@dataclass(frozen=True)
class Raster(FixedOrder):
    """Order of the flat sequence: grid by grid, row by row, depth innermost."""

    def ranks(self, layout: Layout, noise: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        return torch.arange(layout.length, device=noise.device).to(noise).expand_as(noise)


@dataclass(frozen=True)
class Random(FixedOrder):
    """A uniformly random order."""

    def ranks(self, layout: Layout, noise: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        return noise


@dataclass(frozen=True)
class Halton(FixedOrder):
    """Spread over the image by a Halton sequence in bases 2 and 3 (Besnier et al. 2025, arXiv:2503.17076).

    Codes sampled in one step are then far apart and nearly independent. Grids follow one another from coarse
    to fine, and so do the depths of each grid.

    Args:
        randomize: begin the sequence at a random place for each image, so that images do not share an order.
    """

    randomize: bool = False
    first_noise = True

    def ranks(self, layout: Layout, noise: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        ranks = repeat(halton_ranks(layout).to(noise), "n -> b n", b=len(noise))
        if not self.randomize:
            return ranks
        sizes = torch.cat([torch.full((prod(grid) * layout.depth,), prod(grid)) for grid in layout.grids])
        sizes = sizes.to(noise)
        positions = layout.positions()
        first = torch.tensor([0, *(prod(grid) * layout.depth for grid in layout.grids)]).cumsum(0)
        starts = first[positions.grid].to(noise) + positions.depth.to(noise) * sizes
        return starts + (ranks - starts + (noise[:, :1] * sizes).floor()) % sizes


@dataclass(frozen=True)
class Confidence(Order):
    """Most confident codes first, with noise that decays to 0 (MaskGIT, Chang et al. 2022, arXiv:2202.04200).

    Args:
        temperature: initial weight of the Gumbel noise on the scores; 0 for no noise.
        score: confidence in a code: its log-probability (probability), or its logit, which compares codes
            without normalizing them (1d-tokenizer).
    """

    temperature: float = 4.5
    score: Literal["probability", "logit"] = "probability"

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UserError(f"temperature must be at least 0, got {self.temperature}")

    def priority(
        self,
        layout: Layout,
        confidence: Float[Tensor, "b n"],
        noise: Float[Tensor, "b n"],
        remaining: float,
    ) -> Float[Tensor, "b n"]:
        return confidence + self.temperature * remaining * gumbel(noise)


def gumbel(uniforms: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Gumbel noise from multiples of 2^-24 in [0, 1); always finite."""
    return -(-(uniforms.double() + 2**-25).log()).log().float()


@cache
def halton_ranks(layout: Layout) -> Float[Tensor, " n"]:
    """Rank of each code in the order of `Halton`."""
    visits = []
    for height, width in layout.grids:
        visit = torch.from_numpy(halton_visits(height, width)).float()
        later = torch.arange(layout.depth) * float(height * width)
        visits.append((visit[:, None] + later).flatten())  # all positions of one depth, then the next
    starts = np.cumsum([0] + [len(visit) for visit in visits[:-1]])
    return torch.cat([visit + float(start) for visit, start in zip(visits, starts, strict=True)])


def halton_visits(height: int, width: int) -> np.ndarray:
    """Rank in which a Halton sequence first visits each cell of a grid, row by row."""
    found, count = np.empty(0, dtype=np.int64), 2 * height * width
    while len(found) < height * width:
        count *= 2
        rows = (radical_inverse(2, count) * height).astype(np.int64)
        columns = (radical_inverse(3, count) * width).astype(np.int64)
        found, first = np.unique(rows * width + columns, return_index=True)
    return first.argsort().argsort()


def radical_inverse(base: int, count: int) -> np.ndarray:
    """Van der Corput sequence: the digits of 1 ... `count` mirrored at the radix point."""
    rest, result, place = np.arange(1, count + 1), np.zeros(count), 1.0
    while rest.any():
        place /= base
        result += place * (rest % base)
        rest //= base
    return result
