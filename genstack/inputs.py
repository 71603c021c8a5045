"""Inputs of conditions: metadata of images, prompts for samples, and what data offers."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

#: Top, left, bottom and right edge of a part of an image, as shares of its height and width.
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ConditionInputs:
    """Per-image metadata that conditions read: labels, captions, condition images and crops.

    Args:
        labels: class labels; zeros without classes.
        captions: captions; "" for a missing one, () if there are none.
        images: condition images in [-1, 1], one per image, or shared by `image_indices`; None for none.
        image_names: name of each image's condition image, for people; () without.
        crops: top, left, bottom and right edge of each image in the picture it was cropped from, as shares of
            its height and width; None if unknown.
        image_indices: index into `images` per sample; None if each has its own.
    """

    labels: Int[Tensor, " b"]
    captions: tuple[str, ...] = ()
    images: Float[Tensor, "i c H W"] | None = None
    image_names: tuple[str, ...] = ()
    crops: Float[Tensor, "b 4"] | None = None
    image_indices: Int[Tensor, " b"] | None = None

    @classmethod
    def nothing(cls, count: int) -> "ConditionInputs":
        """Inputs of `count` images without metadata."""
        return cls(torch.zeros(count, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Sequence[int]) -> "ConditionInputs":
        """Select images by index."""
        selected = list(indices)
        return ConditionInputs(
            self.labels[selected],
            tuple(self.captions[index] for index in selected) if self.captions else (),
            None
            if self.images is None
            else self.images[selected if self.image_indices is None else self.image_indices[selected]],
            tuple(self.image_names[index] for index in selected) if self.image_names else (),
            None if self.crops is None else self.crops[selected],
        )

    @property
    def image_of_each(self) -> Float[Tensor, "b c H W"] | None:
        """Condition image of each sample."""
        return (
            self.images
            if self.images is None or self.image_indices is None
            else self.images[self.image_indices]
        )

    @property
    def spatial(self) -> bool:
        """True if a part of an image has other inputs than the whole."""
        return self.images is not None or self.crops is not None

    def crop(self, box: Box, size: tuple[int, int]) -> "ConditionInputs":
        """Crop the inputs to a part of each image.

        Args:
            box: edges of the part; outside the image, its border is repeated.
            size: height and width of the part in pixels of the condition images.
        """
        images, crops = self.images, self.crops
        if images is not None:
            rows, columns = (
                (torch.arange(side) + round(edge * whole)).clamp(0, whole - 1)
                for side, edge, whole in zip(size, box[:2], images.shape[-2:], strict=True)
            )
            images = images[..., rows, :][..., columns]
        if crops is not None:
            top, left, bottom, right = crops.unbind(dim=1)
            tall, wide = bottom - top, right - left
            edges = [top + tall * box[0], left + wide * box[1], top + tall * box[2], left + wide * box[3]]
            crops = torch.stack(edges, dim=1).clamp(0, 1)
        return replace(self, images=images, crops=crops)

    def to(self, device: torch.device | str) -> "ConditionInputs":
        return replace(
            self,
            labels=self.labels.to(device),
            images=None if self.images is None else self.images.to(device),
            crops=None if self.crops is None else self.crops.to(device),
            image_indices=None if self.image_indices is None else self.image_indices.to(device),
        )


@dataclass(frozen=True)
class Prompts:
    """Prompts as users give them; each kind is cycled over the samples.

    Args:
        classes: class names, or labels as `#index`.
        captions: captions.
        images: condition images in [-1, 1]; None for none.
        image_names: names of the condition images.
        crops: top, left, bottom and right edge of crops, as shares of the whole picture.
    """

    classes: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    images: Float[Tensor, "b c H W"] | None = None
    image_names: tuple[str, ...] = ()
    crops: tuple[tuple[float, float, float, float], ...] = ()

    @property
    def kinds(self) -> dict[str, bool]:
        """Kinds of prompts, in words, and whether any are given."""
        return {
            "classes": bool(self.classes),
            "captions": bool(self.captions),
            "condition images": self.images is not None,
            "coordinates": bool(self.crops),
        }


@dataclass(frozen=True)
class DataInfo:
    """Properties of a data set that conditions need.

    Args:
        classes: class names in the order of their labels; () for none.
        captions: iterates over the captions of the training images.
        image_shape: channels, height and width of a condition image.
        crops_vary: True if training images are cropped at different places.
        untrained: labels of classes without a training image.
    """

    classes: tuple[str, ...] = ()
    captions: Callable[[], Iterable[str]] = tuple
    image_shape: tuple[int, int, int] = (3, 0, 0)
    crops_vary: bool = False
    untrained: tuple[int, ...] = ()
