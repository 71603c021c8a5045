"""In which order codes are drawn: row by row, at random, spread by Halton, or the surest first."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import final

import numpy as np
import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from genstack.errors import UserError
from genstack.layout import CodeLayout


class Order(ABC):
    """Which of the codes that are still hidden are to be seen next. Subclasses are frozen plans."""

    @abstractmethod
    def urgency(
        self,
        layout: CodeLayout,
        confidence: Float[Tensor, "b n"],
        noise: Float[Tensor, "b n"],
        remaining: float,
    ) -> Float[Tensor, "b n"]:
        """How early each code is to be seen; the most urgent come first.

        Args:
            layout: where the codes lie.
            confidence: log-probability of the code that was drawn for each place.
            noise: a number in [0, 1) for each place, fresh in every step.
            remaining: share of the steps that come after this one.
        """


class FixedOrder(Order):
    """An order that is known before anything is drawn."""

    @abstractmethod
    def ranks(self, layout: CodeLayout, noise: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """When each code is drawn, from 0 up; `noise` is a number in [0, 1) for each place."""

    @final
    def urgency(
        self,
        layout: CodeLayout,
        confidence: Float[Tensor, "b n"],
        noise: Float[Tensor, "b n"],
        remaining: float,
    ) -> Float[Tensor, "b n"]:
        return -self.ranks(layout, noise)


@dataclass(frozen=True)
class Raster(FixedOrder):
    """The order of the flat sequence: grid by grid, row by row, depth innermost."""

    def ranks(self, layout: CodeLayout, noise: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        return torch.arange(layout.length, device=noise.device).to(noise).expand_as(noise)


@dataclass(frozen=True)
class Random(FixedOrder):
    """Any order, each as likely as another."""

    def ranks(self, layout: CodeLayout, noise: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        return noise


@dataclass(frozen=True)
class Halton(FixedOrder):
    """Spread over the image by Halton's sequence in bases 2 and 3 (Besnier et al. 2025, arXiv:2503.17076).

    Codes that are drawn together then lie far apart and tell little about each other. Grids follow one
    another from coarse to fine, and so do the depths of each grid.
    """

    def ranks(self, layout: CodeLayout, noise: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        return repeat(halton_ranks(layout).to(noise), "n -> b n", b=len(noise))


@dataclass(frozen=True)
class Confidence(Order):
    """The surest codes first, with noise that fades (MaskGIT, Chang et al. 2022, arXiv:2202.04200).

    Args:
        temperature: weight at the start of the Gumbel noise on the log-probabilities that are compared; 0
            always takes the surest.
    """

    temperature: float = 4.5

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UserError(f"temperature {self.temperature} is out of range; it must be at least 0")

    def urgency(
        self,
        layout: CodeLayout,
        confidence: Float[Tensor, "b n"],
        noise: Float[Tensor, "b n"],
        remaining: float,
    ) -> Float[Tensor, "b n"]:
        return confidence + self.temperature * remaining * gumbel(noise)


def gumbel(uniforms: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Gumbel noise from numbers in [0, 1) that are multiples of 2^-24; never infinite."""
    return -(-(uniforms.double() + 2**-25).log()).log().float()


@cache
def halton_ranks(layout: CodeLayout) -> Float[Tensor, " n"]:
    """The place of each code in the order of `Halton`."""
    visits = []
    for height, width in layout.grids:
        visit = torch.from_numpy(halton_visits(height, width)).float()
        later = torch.arange(layout.depth) * float(height * width)
        visits.append((visit[:, None] + later).flatten())  # all places in one depth, then in the next
    starts = np.cumsum([0] + [len(visit) for visit in visits[:-1]])
    return torch.cat([visit + float(start) for visit, start in zip(visits, starts, strict=True)])


def halton_visits(height: int, width: int) -> np.ndarray:
    """When Halton's points first fall into each cell of a grid, row by row, counted in cells."""
    found, count = np.empty(0, dtype=np.int64), 2 * height * width
    while len(found) < height * width:
        count *= 2
        rows = (radical_inverse(2, count) * height).astype(np.int64)
        columns = (radical_inverse(3, count) * width).astype(np.int64)
        found, first = np.unique(rows * width + columns, return_index=True)
    return first.argsort().argsort()


def radical_inverse(base: int, count: int) -> np.ndarray:
    """The numbers 1, 2, ... `count` with their digits mirrored at the point (van der Corput)."""
    rest, result, place = np.arange(1, count + 1), np.zeros(count), 1.0
    while rest.any():
        place /= base
        result += place * (rest % base)
        rest //= base
    return result
