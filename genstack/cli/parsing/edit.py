"""Which part of a picture is drawn anew, and how large, as the command line says it."""

import re
from dataclasses import dataclass
from pathlib import Path

from genstack.data.images import MOST_PIXELS
from genstack.errors import UserError
from genstack.model import Model
from genstack.sampling import Canvas


@dataclass(frozen=True)
class Edit:
    """The flags of other sizes and of editing.

    Args:
        size: height and width of the images, as in 256x512, where they are not those of the training; the
            prior works through a window that slides over them.
        overlap: share of the window that lies over the one beside it; more is slower and more coherent.
        image: picture of which a part is drawn anew; scaled and cropped as in training.
        keep: part of the picture that stays: top, bottom, left or right, and how much, as in top:0.5.
        mask: picture of the same size as --image, white where it is drawn anew.
        place: where the picture lies on a larger --size: share of the free way from the top and from the
            left; in the middle if left out.
        grow: codes by which the part that is drawn grows, since codes near it have seen it; measured if left
            out.
    """

    size: str = ""
    overlap: float = 0.5
    image: str = ""
    keep: str = ""
    mask: str = ""
    place: tuple[float, float] | None = None
    grow: int | None = None

    def canvas(self, model: Model) -> Canvas | None:
        """The picture and the hole in it, where one was named.

        Raises:
            UserError: it is not said, or said twice, what is drawn.
        """
        if not self.image:
            if self.keep or self.mask:
                raise UserError("--keep and --mask say what stays of a picture; name it by --image")
            if self.grow is not None or self.place is not None:
                raise UserError("--grow and --place are for a picture to edit; name it by --image")
            return None
        if self.place is not None and (self.keep or self.mask):
            raise UserError("--place is for a picture on a larger --size; leave out --keep and --mask, or it")
        if self.mask and self.keep:
            raise UserError("--mask and --keep both say what stays; leave one out")
        file, size = Path(self.image), size_of(self.size)
        if self.keep:
            return Canvas.keeping(model, file, self.keep, size, self.grow)
        if self.mask:
            return Canvas.masked(model, file, Path(self.mask), size, self.grow)
        if size in (None, (model.preprocessing.height, model.preprocessing.width)):
            raise UserError(
                "--image alone leaves nothing to draw; say what stays by --keep or --mask, "
                "or give a larger --size to draw around it"
            )
        return Canvas.around(model, file, size, self.place or (0.5, 0.5), self.grow)


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
