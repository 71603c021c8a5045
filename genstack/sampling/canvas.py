"""Pictures to edit, with a mask of the pixels that are sampled."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from genstack.data.images import read
from genstack.data.transforms import crop_and_resize, load
from genstack.errors import UserError
from genstack.model import Model
from genstack.prior.editing import completion_mask, outpainting_canvas


@dataclass(frozen=True)
class Canvas:
    """A picture and the mask of the pixels to sample.

    Args:
        image: the picture, in [-1, 1].
        mask: True for pixels that are sampled.
        metadata: origin of both, for files.
        grow: code positions by which the mask is dilated, since codes near it depend on masked pixels; None
            for the encoder's receptive field.
    """

    image: Float[Tensor, "c H W"]
    mask: Bool[Tensor, "H W"]
    metadata: Mapping[str, Any]
    grow: int | None = None

    def __post_init__(self) -> None:
        if self.grow is not None and self.grow < 0:
            raise UserError(f"grow must be at least 0 codes, got {self.grow}")

    @classmethod
    def completion(
        cls, model: Model, file: Path, keep: str, size: tuple[int, int] | None = None, grow: int | None = None
    ) -> "Canvas":
        """Keep one side of a picture, such as `top:0.5` or `left:0.25`.

        Args:
            model: the model.
            file: the picture; scaled and cropped as in training.
            keep: the side, and its share.
            size: height and width; None for the training size.
            grow: see the class.
        """
        image = load_image(model, file, size)
        metadata = {"image": file_hash(file), "keep": keep}
        return cls(image, completion_mask(keep, *image.shape[1:]), metadata, grow)

    @classmethod
    def inpainting(
        cls,
        model: Model,
        file: Path,
        mask: Path,
        size: tuple[int, int] | None = None,
        grow: int | None = None,
    ) -> "Canvas":
        """Sample a picture anew where a mask is white.

        Args:
            model: the model.
            file: the picture; scaled and cropped as in training.
            mask: the mask, a picture of the same size.
            size: height and width; None for the training size.
            grow: see the class.
        """
        image = load_image(model, file, size)
        if (read(mask, 4)[3] < 1).any():
            raise UserError(
                f"mask {mask} has transparent pixels; save it without alpha, white where to sample"
            )
        white, original = read(mask, 1), read(file, 1)
        if white.shape != original.shape:
            raise UserError(
                f"mask {mask} has {white.shape[1]}x{white.shape[2]} pixels, expected those of {file}, "
                f"{original.shape[1]}x{original.shape[2]}"
            )
        pixels = crop_and_resize(white * 2 - 1, (image.shape[1], image.shape[2]))[0] > 0
        if not pixels.any():
            raise UserError(f"mask {mask} has no white pixels; paint white what to sample")
        return cls(image, pixels, {"image": file_hash(file), "mask": file_hash(mask)}, grow)

    @classmethod
    def outpainting(
        cls,
        model: Model,
        file: Path,
        size: tuple[int, int],
        place: tuple[float, float] = (0.5, 0.5),
        grow: int | None = None,
    ) -> "Canvas":
        """Place a picture, in the size of training, on a larger canvas, and sample around it.

        Args:
            model: the model.
            file: the picture; scaled and cropped as in training.
            size: height and width of the canvas.
            place: share of the free space above and to the left.
            grow: see the class.
        """
        rows, columns = model.layout.grids[-1]
        step = (model.preprocessing.height // rows, model.preprocessing.width // columns)
        image, mask = outpainting_canvas(load_image(model, file), size, place, step)
        return cls(image, mask, {"image": file_hash(file), "place": list(place)}, grow)


def load_image(model: Model, file: Path, size: tuple[int, int] | None = None) -> Float[Tensor, "c H W"]:
    """Load a picture with the preprocessing of a model, and optionally another size."""
    height, width = size or (model.preprocessing.height, model.preprocessing.width)
    return load(file, replace(model.preprocessing, height=height, width=width))


def file_hash(file: Path) -> str:
    """Name of a file, and a hash of its contents."""
    return f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"
