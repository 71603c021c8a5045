"""What is known of images beside their codes, and what is asked of images that are still to be drawn."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

#: Top, left, bottom and right edge of a part of an image, as shares of its height and width.
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ConditionInputs:
    """What is known of each of some images; a condition reads from it what it needs.

    Args:
        labels: their classes; zeros where there are none.
        captions: what they show, in words; "" where nothing is known, () for that of all.
        images: condition images, in [-1, 1], one of each or those that `turns` speaks of; None for none.
        image_names: where the condition image of each comes from, for people; () for nowhere.
        crops: top, left, bottom and right edge of each in the picture that it was cut from, as shares of that
            picture's height and width; None where nothing is known.
        turns: which of `images` is that of each, where many share them; None where each has its own.
    """

    labels: Int[Tensor, " b"]
    captions: tuple[str, ...] = ()
    images: Float[Tensor, "i c H W"] | None = None
    image_names: tuple[str, ...] = ()
    crops: Float[Tensor, "b 4"] | None = None
    turns: Int[Tensor, " b"] | None = None

    @classmethod
    def nothing(cls, count: int) -> "ConditionInputs":
        """Nothing of so many images."""
        return cls(torch.zeros(count, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Sequence[int]) -> "ConditionInputs":
        """Those of some of the images, in the order of the indices."""
        chosen = list(indices)
        return ConditionInputs(
            self.labels[chosen],
            tuple(self.captions[index] for index in chosen) if self.captions else (),
            None
            if self.images is None
            else self.images[chosen if self.turns is None else self.turns[chosen]],
            tuple(self.image_names[index] for index in chosen) if self.image_names else (),
            None if self.crops is None else self.crops[chosen],
        )

    @property
    def image_of_each(self) -> Float[Tensor, "b c H W"] | None:
        """The condition image of each."""
        return self.images if self.images is None or self.turns is None else self.images[self.turns]

    @property
    def placed(self) -> bool:
        """Whether what is known of a part of an image differs from what is known of the whole."""
        return self.images is not None or self.crops is not None

    def part(self, box: Box, size: tuple[int, int]) -> "ConditionInputs":
        """What is known of a part of each image.

        Args:
            box: of the part; beyond the image, its edge goes on.
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
            turns=None if self.turns is None else self.turns.to(device),
        )


@dataclass(frozen=True)
class Prompts:
    """What a user asks of images to draw, as the user says it; each kind of wish is met in turn.

    Args:
        classes: class names, or labels as `#index`.
        captions: what the images shall show, in words.
        images: condition images, in [-1, 1]; None for none.
        image_names: where these come from.
        crops: top, left, bottom and right edge of crops, as shares of the whole picture.
    """

    classes: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    images: Float[Tensor, "b c H W"] | None = None
    image_names: tuple[str, ...] = ()
    crops: tuple[tuple[float, float, float, float], ...] = ()

    @property
    def kinds(self) -> dict[str, bool]:
        """Which kinds of wishes there are, by the name of a user's word for them."""
        return {
            "classes": bool(self.classes),
            "captions": bool(self.captions),
            "condition images": self.images is not None,
            "coordinates": bool(self.crops),
        }


@dataclass(frozen=True)
class DataInfo:
    """What data has for a condition to read.

    Args:
        classes: in the order of their labels; () for none.
        captions: those of the training images, one after the other, read when called.
        image_shape: channels, height and width of a condition image.
        crops_vary: whether training images are cut from places that differ.
        untrained: labels of the classes without a training image.
    """

    classes: tuple[str, ...] = ()
    captions: Callable[[], Iterable[str]] = tuple
    image_shape: tuple[int, int, int] = (3, 0, 0)
    crops_vary: bool = False
    untrained: tuple[int, ...] = ()
