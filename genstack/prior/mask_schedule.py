"""Schedules of the mask ratio: in training, and over the steps of sampling (arXiv:2202.04200)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genstack.errors import UserError
from genstack.prior.masked_transformer import stratified_uniforms


@dataclass(frozen=True)
class MaskSchedule:
    """Share of positions that are masked, over training times and sampling steps.

    Args:
        ratio: mask ratio at progress r: cosine, cos(pi r / 2); arccos, 2 arccos(r) / pi; linear, 1 - r;
            square, 1 - r^2; cubic, 1 - r^3; root, 1 - sqrt(r). All but linear and root sample few positions
            in the first steps.
        steps: sampling steps, unless sampling sets its own.
        rounded: number that is rounded down in each step of sampling: of positions still masked (MaskGIT), or
            of those kept so far (kept, Halton-MaskGIT).
    """

    ratio: Literal["cosine", "arccos", "linear", "square", "cubic", "root"] = "cosine"
    steps: int = 8
    rounded: Literal["masked", "kept"] = "masked"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"steps of the schedule must be at least 1, got {self.steps}")

    def at(self, progress: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Mask ratio: from 1 at progress 0 to 0 at progress 1."""
        if self.ratio == "cosine":
            return (progress * (math.pi / 2)).cos().clamp(0, 1)
        if self.ratio == "arccos":
            return progress.arccos() * (2 / math.pi)
        return 1 - progress ** {"linear": 1, "square": 2, "cubic": 3, "root": 0.5}[self.ratio]

    def training_counts(self, images: int, length: int, device: torch.device) -> Int[Tensor, " {images}"]:
        """Number of masked positions of each image at random times, at least 1 of `length`."""
        ratio = self.at(stratified_uniforms(images, device))
        return (ratio * length).ceil().long().clamp(1, length)

    def remaining(
        self, progress: float, total: Int[Tensor, " b"], masked: Int[Tensor, " b"]
    ) -> Int[Tensor, " b"]:
        """Number of positions that a sampling step leaves masked; at least one fewer than before.

        Args:
            progress: share of the steps that are done after this one.
            total: positions that were masked before the first step.
            masked: positions that are masked before this step.
        """
        ratio = float(self.at(torch.tensor(progress, dtype=torch.float64)))
        rest = ratio * total if self.rounded == "masked" else total - ((1 - ratio) * total.double()).floor()
        return torch.minimum(rest.floor().long(), masked - 1).clamp(min=0)
