"""The real images of an evaluation: one side of a split, in order, centred, and rounded as files are."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.data import Batch, ImageData
from genstack.data.batch import Samples, join
from genstack.errors import UserError
from genstack.evaluation.rounding import as_saved


@dataclass
class Reference:
    """Real images by number.

    Args:
        data: where they come from.
        side: which of them.
        limit: how many, at most; None for all.
    """

    data: ImageData
    side: Literal["validation", "training", "all"]
    limit: int | None = None

    def __post_init__(self) -> None:
        if not len(self):
            raise UserError(
                f"{self.data.source} has no {self.side} images; use another --split, or another --data.source"
            )

    @cached_property
    def numbers(self) -> Sequence[int]:
        """Numbers of the images in the source."""
        split = self.data.split
        chosen = {
            "validation": split.validation,
            "training": split.training,
            "all": range(split.images),
        }[self.side]
        return chosen[: self.limit]

    @cached_property
    def samples(self) -> Samples:
        """The images."""
        return self.data.samples(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def key(self, index: int) -> str:
        """The lasting name of an image."""
        return self.data.opened.key(self.numbers[index])

    def batch(self, indices: Sequence[int]) -> Batch:
        """Some of the images, beginning anew after the last one; of few unreadable ones the next is taken."""
        batch = self.read(indices)
        self.data.unreadable.add(batch.skipped)
        return batch

    def read(self, indices: Sequence[int]) -> Batch:
        """The same, whatever is in `skipped`."""
        batch = join([self.samples[0, index % len(self)] for index in indices])
        batch.images = as_saved(batch.images, self.data.preprocessing)
        return batch

    def told(self) -> dict[str, Any]:
        """What a card says of the images."""
        height, width = self.data.size
        return {
            "source": self.data.source,
            "split": self.side,
            "count": len(self),
            "height": height,
            "width": width,
            "channels": self.data.channels,
            "crop": "centre, the largest with the proportions of height and width",
            "resize": "bicubic with antialiasing, where the crop has another size",
            "rounding": f"{self.data.preprocessing.bits} bits, half up, as in saved PNG files, on both sides",
        }


def standing_out(values: Float[Tensor, " n"], count: int) -> tuple[list[int], list[int]]:
    """Numbers of the lowest and of the highest values, the most extreme first."""
    order = torch.argsort(values, stable=True).tolist()
    return order[:count], order[::-1][:count]
