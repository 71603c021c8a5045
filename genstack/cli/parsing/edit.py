"""Flags of the image size, and of edits of a picture."""

import re
from dataclasses import dataclass
from pathlib import Path

from genstack.cli.parsing.paths import Place
from genstack.data.images import MOST_PIXELS
from genstack.errors import UserError
from genstack.model import Model
from genstack.sampling import Canvas


@dataclass(frozen=True)
class Edit:
    """Flags of sizes and edits.

    Args:
        size: height and width, as in 256x512; the prior samples other sizes than its own through a sliding
            window. Its own size by default.
        overlap: share of the window that overlaps the next one; more is slower and more coherent.
        image: picture to edit; scaled and cropped as in training.
        keep: part of the picture to keep: top, bottom, left or right, and its share, as in top:0.5.
        mask: picture of the same size as --image, white where new pixels are sampled.
        place: position of the picture on a larger --size: share of the free space above it and left of it;
            the middle by default.
        grow: dilate the mask by this many code positions. Codes near the mask depend on masked pixels, so the
            default is the encoder's receptive field.
    """

    size: str = ""
    overlap: float = 0.5
    image: Place = ""
    keep: str = ""
    mask: Place = ""
    place: tuple[float, float] | None = None
    grow: int | None = None

    def canvas(self, model: Model) -> Canvas | None:
        """Read the picture to edit and its mask; None without --image."""
        if not self.image:
            if self.keep or self.mask:
                raise UserError("--keep and --mask require --image FILE")
            if self.grow is not None or self.place is not None:
                raise UserError("--grow and --place require --image FILE")
            return None
        if self.place is not None and (self.keep or self.mask):
            raise UserError("--place cannot be combined with --keep or --mask")
        if self.mask and self.keep:
            raise UserError("--mask and --keep exclude each other; leave one out")
        file, size = Path(self.image), parse_size(self.size)
        if self.keep:
            return Canvas.completion(model, file, self.keep, size, self.grow)
        if self.mask:
            return Canvas.inpainting(model, file, Path(self.mask), size, self.grow)
        if size in (None, (model.preprocessing.height, model.preprocessing.width)):
            raise UserError("--image alone leaves nothing to sample; add --keep, --mask or a larger --size")
        return Canvas.outpainting(model, file, size, self.place or (0.5, 0.5), self.grow)


def parse_size(text: str) -> tuple[int, int] | None:
    """Parse height and width from `256x512`; None from an empty text."""
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 < size[0] * size[1] <= MOST_PIXELS:
        raise UserError(f"invalid --size '{text}': expected HEIGHTxWIDTH, at most {MOST_PIXELS} pixels")
    return size
