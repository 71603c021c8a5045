"""A picture to edit, and which part of it is drawn anew, from what the command line says."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from genstack.data.framing import frame, load
from genstack.data.images import MOST_PIXELS, read
from genstack.editing import all_but, extended
from genstack.errors import UserError
from genstack.model import Model


@dataclass(frozen=True)
class Canvas:
    """A picture, and the hole in it that is drawn.

    Args:
        image: in [-1, 1].
        hole: True where pixels are drawn.
        told: where they come from, for files.
    """

    image: Float[Tensor, "c H W"]
    hole: Bool[Tensor, "H W"]
    told: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        model: Model,
        image: str,
        mask: str,
        keep: str,
        size: tuple[int, int] | None,
        place: tuple[float, float],
    ) -> "Canvas":
        """The picture in a file, with the hole that a mask or a part to keep leaves, or a larger size.

        Raises:
            UserError: no picture, or it is not said, or said twice, what is drawn.
        """
        if not image:
            raise UserError("--keep and --mask say what stays of a picture; name it by --image")
        if mask and keep:
            raise UserError("--mask and --keep both say what stays; leave one out")
        trained = (model.preprocessing.height, model.preprocessing.width)
        if not (mask or keep):
            if size in (None, trained):
                raise UserError(
                    "--image alone leaves nothing to draw; say what stays by --keep or --mask, "
                    "or give a larger --size to draw around it"
                )
            return cls._around(model, image, size or trained, place)
        height, width = size or trained
        picture = load(Path(image), replace(model.preprocessing, height=height, width=width))
        told: dict[str, Any] = {"image": named(image)}
        if keep:
            return cls(picture, all_but(keep, height, width), told | {"keep": keep})
        hole = read(Path(mask), 1)
        original = read(Path(image), 1)
        if hole.shape != original.shape:
            raise UserError(
                f"{mask} has {hole.shape[1]}x{hole.shape[2]} pixels, {image} has "
                f"{original.shape[1]}x{original.shape[2]}; a mask has the size of its picture"
            )
        hole = frame(hole * 2 - 1, (height, width))[0] > 0
        if not hole.any():
            raise UserError(f"{mask} has no white, so nothing would be drawn; paint white what shall change")
        return cls(picture, hole, told | {"mask": named(mask)})

    @classmethod
    def _around(cls, model: Model, image: str, size: tuple[int, int], place: tuple[float, float]) -> "Canvas":
        """A picture as large as in training, on a larger one."""
        rows, columns = model.layout.grids[-1]
        step = (model.preprocessing.height // rows, model.preprocessing.width // columns)
        picture, hole = extended(load(Path(image), model.preprocessing), size, place, step)
        return cls(picture, hole, {"image": named(image), "place": list(place)})


def named(file: str) -> str:
    """A file by its name and contents."""
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
    return f"{Path(file).name} {digest}"


def size_of(text: str) -> tuple[int, int] | None:
    """Height and width from `256x512`; None from nothing.

    Raises:
        UserError: this is no size, or no picture can have it.
    """
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 < size[0] * size[1] <= MOST_PIXELS:
        raise UserError(f"size {text} is no height and width, as in 256x512, of at most {MOST_PIXELS} pixels")
    return size
