"""Codes or latents given before sampling: completion, inpainting, and windows of larger images."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from genstack.layout import Layout


@dataclass(frozen=True)
class Known:
    """Codes or latents that are given, while the others are sampled.

    Args:
        values: codes or latents of each image; arbitrary where `mask` is False.
        mask: True where a value is known, as `Layout.mask` returns it.
    """

    values: Shaped[Tensor, "b ..."]
    mask: Bool[Tensor, " b ..."]

    @classmethod
    def nothing(cls, layout: Layout, images: int) -> "Known":
        """No known values."""
        values = layout.zeros(images)
        return cls(
            values, layout.mask([torch.zeros(grid, dtype=torch.bool) for grid in layout.grids], images)
        )

    def to(self, device: torch.device | str) -> "Known":
        return Known(self.values.to(device), self.mask.to(device))
