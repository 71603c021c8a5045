"""Codes that are given before sampling: completion, inpainting, and windows of larger images."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class Known:
    """Codes that are given, while the others are sampled.

    Args:
        codes: codes of each image; arbitrary where `mask` is False.
        mask: True where a code is known.
    """

    codes: Int[Tensor, "b n"]
    mask: Bool[Tensor, "b n"]

    @classmethod
    def nothing(cls, images: int, length: int) -> "Known":
        """No known codes."""
        return cls(
            torch.zeros(images, length, dtype=torch.int64), torch.zeros(images, length, dtype=torch.bool)
        )

    def to(self, device: torch.device | str) -> "Known":
        return Known(self.codes.to(device), self.mask.to(device))
