"""Views: the crops of a picture that are encoded, each as an image of its own.

Ten crops an image are those of Krizhevsky et al. 2012, as LlamaGen (arXiv:2406.06525) encodes ImageNet; only
the middle one is taken from the whole picture here, since validation sees that one.
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
        zoom: how much smaller its sides are than the largest crop's, at least 1.
        place: where it lies, as shares of the free way from the top and from the left.
        mirrored: left and right are exchanged.
    """

    zoom: float = 1.0
    place: tuple[float, float] = (0.5, 0.5)
    mirrored: bool = False

    def __post_init__(self) -> None:
        if not (1 <= self.zoom <= MOST_ZOOM and all(0 <= share <= 1 for share in self.place)):
            raise UserError(f"invalid crop: {self}")

    def __call__(self, image: Float[Tensor, "c h w"], size: tuple[int, int]) -> Float[Tensor, "c H W"]:
        """The view at this height and width."""
        framed = crop_and_resize(image, size, self.zoom, self.place)
        return framed.flip(-1) if self.mirrored else framed

    def edges(self, sides: tuple[int, int], size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Top, left, bottom and right edge in a picture of these sides, or in its mirror image, as shares."""
        top, left, tall, wide = crop_box(sides, size, self.zoom, self.place)
        height, width = sides
        upper, lower = top / height, (top + tall) / height
        first, last = left / width, (left + wide) / width
        return (upper, 1 - last, lower, 1 - first) if self.mirrored else (upper, first, lower, last)


def mirrored_too(views: tuple[View, ...]) -> tuple[View, ...]:
    """The views, and behind them their mirror images."""
    return (*views, *(replace(view, mirrored=True) for view in views))


CORNERS = tuple(View(1.1, (row, column)) for row in (0.0, 1.0) for column in (0.0, 1.0))
#: By the name that a user gives them; the first view is always the one that validation sees.
VIEWS: Mapping[str, tuple[View, ...]] = {
    "center": (View(),),
    "flip": mirrored_too((View(),)),
    "ten-crop": mirrored_too((View(), *CORNERS)),
}
