"""Views: the crops of a picture that are encoded as images of their own.

The ten crops are those of Krizhevsky et al. 2012, as LlamaGen (arXiv:2406.06525) encodes ImageNet. Unlike
there, the center crop is not zoomed, since validation reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from genstack.data.transforms import crop_and_resize, crop_box
from genstack.errors import UserError

MOST_ZOOM = 64.0


@dataclass(frozen=True)
class View:
    """A crop of a picture, mirrored or not.

    Args:
        zoom: sides of the largest possible crop divided by the sides of this one, at least 1.
        place: position between top and bottom and between left and right, from 0 to 1.
        mirrored: True to mirror left and right.
    """

    zoom: float = 1.0
    place: tuple[float, float] = (0.5, 0.5)
    mirrored: bool = False

    def __post_init__(self) -> None:
        if not (1 <= self.zoom <= MOST_ZOOM and all(0 <= share <= 1 for share in self.place)):
            raise UserError(f"invalid crop: {self}")

    def __call__(self, image: Float[Tensor, "c h w"], size: tuple[int, int]) -> Float[Tensor, "c H W"]:
        """Cut the view out of an image, at this height and width."""
        framed = crop_and_resize(image, size, self.zoom, self.place)
        return framed.flip(-1) if self.mirrored else framed

    def edges(self, sides: tuple[int, int], size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Top, left, bottom and right edge as shares of the picture's sides, or of its mirror image's."""
        top, left, tall, wide = crop_box(sides, size, self.zoom, self.place)
        height, width = sides
        upper, lower = top / height, (top + tall) / height
        first, last = left / width, (left + wide) / width
        return (upper, 1 - last, lower, 1 - first) if self.mirrored else (upper, first, lower, last)


def with_mirrored(views: tuple[View, ...]) -> tuple[View, ...]:
    """Append the mirror image of each view."""
    return (*views, *(replace(view, mirrored=True) for view in views))


CORNERS = tuple(View(1.1, (row, column)) for row in (0.0, 1.0) for column in (0.0, 1.0))
#: Views by their names in `genstack encode --views`; validation reads the first one.
VIEWS: Mapping[str, tuple[View, ...]] = {
    "center": (View(),),
    "flip": with_mirrored((View(),)),
    "ten-crop": with_mirrored((View(), *CORNERS)),
}
