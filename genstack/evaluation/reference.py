"""Real images of an evaluation, centre-cropped and rounded as in saved files."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from genstack.data import Batch, ImageData
from genstack.data.batch import ImageDataset, join
from genstack.data.images import Preprocessing
from genstack.errors import UserError


@dataclass
class ReferenceSet:
    """Real images by index.

    Args:
        data: source of the images.
        side: part of the source's split.
        limit: maximum number of images; None for all.
    """

    data: ImageData
    side: Literal["validation", "training", "all"]
    limit: int | None = None

    def __post_init__(self) -> None:
        if not len(self):
            raise UserError(
                f"{self.data.source} has no {self.side} images; use another --split or another --data.source"
            )

    @cached_property
    def indices(self) -> Sequence[int]:
        """Indices of the images in the source."""
        numbers = self.data.numbers if self.side == "all" else getattr(self.data.split, self.side)
        return numbers[: self.limit]

    @cached_property
    def samples(self) -> ImageDataset:
        """The images as a map-style data set."""
        return self.data.samples(self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def key(self, index: int) -> str:
        """Return the permanent name of an image."""
        return self.data.catalog.key(self.indices[index])

    def batch(self, indices: Sequence[int]) -> Batch:
        """Read images; indices wrap around, and the next image replaces an unreadable one."""
        batch = self.read(indices)
        self.data.unreadable.add(batch.skipped)
        return batch

    def read(self, indices: Sequence[int]) -> Batch:
        """Read images without a limit on unreadable ones."""
        batch = join([self.samples[0, index % len(self)] for index in indices])
        batch.images = as_saved(batch.images, self.data.preprocessing)
        return batch

    @property
    def metadata(self) -> dict[str, Any]:
        """Description of the images for the metric card."""
        height, width = self.data.size
        return {
            "source": self.data.source,
            "split": self.side,
            "count": len(self),
            "height": height,
            "width": width,
            "channels": self.data.channels,
            "crop": "centre, largest crop of the same aspect ratio",
            "resize": "bicubic with antialiasing, if the crop has another size",
            "rounding": f"{self.data.preprocessing.bits} bits, half up, as in saved PNG files, in both sets",
        }


def as_saved(images: Float[Tensor, "b c H W"], preprocessing: Preprocessing) -> Float[Tensor, "b c H W"]:
    """Round images as a PNG file does, so that files and tensors give the same numbers."""
    values = torch.from_numpy(preprocessing.to_file(images).astype("float32"))
    pixels = values if preprocessing.window is not None else values / preprocessing.highest
    return preprocessing.to_model(rearrange(pixels, "b h w c -> b c h w")).contiguous()
