"""A picture to edit, and which part of it is drawn anew."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from genstack.data.framing import frame, load
from genstack.data.images import read
from genstack.errors import UserError
from genstack.model import Model
from genstack.prior.editing import completion_mask, outpainting_canvas


@dataclass(frozen=True)
class Canvas:
    """A picture, and the hole in it that is drawn.

    Args:
        image: in [-1, 1].
        hole: True where pixels are drawn.
        told: where they come from, for files.
        grow: codes by which the hole grows, since codes near it have seen it; None for the encoder's reach.
    """

    image: Float[Tensor, "c H W"]
    hole: Bool[Tensor, "H W"]
    told: Mapping[str, Any]
    grow: int | None = None

    def __post_init__(self) -> None:
        if self.grow is not None and self.grow < 0:
            raise UserError(f"grow {self.grow} is too small; it must be at least 0 codes")

    @classmethod
    def keeping(
        cls, model: Model, file: Path, keep: str, size: tuple[int, int] | None = None, grow: int | None = None
    ) -> "Canvas":
        """The picture in a file, of which one side stays: `top:0.5`, `left:0.25`.

        Args:
            model: that draws.
            file: the picture; scaled and cropped as in training.
            keep: the side, and how much of it.
            size: height and width; those of the training if None.
            grow: as of the class.
        """
        picture = at(model, file, size)
        return cls(
            picture, completion_mask(keep, *picture.shape[1:]), {"image": named(file), "keep": keep}, grow
        )

    @classmethod
    def masked(
        cls,
        model: Model,
        file: Path,
        mask: Path,
        size: tuple[int, int] | None = None,
        grow: int | None = None,
    ) -> "Canvas":
        """The picture in a file, drawn anew where a mask of the same size is white.

        Args:
            model: that draws.
            file: the picture; scaled and cropped as in training.
            mask: a picture too.
            size: height and width; those of the training if None.
            grow: as of the class.

        Raises:
            UserError: the mask has another size than the picture, is transparent, or has no white.
        """
        picture = at(model, file, size)
        if (read(mask, 4)[3] < 1).any():
            raise UserError(
                f"{mask} is transparent in places, which may mean either; lay it on black, and paint white "
                f"what shall change"
            )
        hole, original = read(mask, 1), read(file, 1)
        if hole.shape != original.shape:
            raise UserError(
                f"{mask} has {hole.shape[1]}x{hole.shape[2]} pixels, {file} has "
                f"{original.shape[1]}x{original.shape[2]}; a mask has the size of its picture"
            )
        hole = frame(hole * 2 - 1, (picture.shape[1], picture.shape[2]))[0] > 0
        if not hole.any():
            raise UserError(f"{mask} has no white, so nothing would be drawn; paint white what shall change")
        return cls(picture, hole, {"image": named(file), "mask": named(mask)}, grow)

    @classmethod
    def around(
        cls,
        model: Model,
        file: Path,
        size: tuple[int, int],
        place: tuple[float, float] = (0.5, 0.5),
        grow: int | None = None,
    ) -> "Canvas":
        """The picture in a file, as large as in training, on a larger one that is drawn around it.

        Args:
            model: that draws.
            file: the picture; scaled and cropped as in training.
            size: height and width of the larger one.
            place: share of the free way from the top and from the left.
            grow: as of the class.
        """
        rows, columns = model.layout.grids[-1]
        step = (model.preprocessing.height // rows, model.preprocessing.width // columns)
        picture, hole = outpainting_canvas(at(model, file), size, place, step)
        return cls(picture, hole, {"image": named(file), "place": list(place)}, grow)


def at(model: Model, file: Path, size: tuple[int, int] | None = None) -> Float[Tensor, "c H W"]:
    """The picture in a file as a model reads it, of another size if one is given."""
    height, width = size or (model.preprocessing.height, model.preprocessing.width)
    return load(file, replace(model.preprocessing, height=height, width=width))


def named(file: Path) -> str:
    """A file by its name and contents."""
    return f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"
