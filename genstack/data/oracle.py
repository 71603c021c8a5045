"""Recognizes shapes, colours and positions in pictures of `shapes` by geometry, without learning."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from genstack.data.scene import CLASSES, COLOURS, SHAPES, Thing


@dataclass(frozen=True)
class Seen:
    """A recognized shape.

    Args:
        shape: one of SHAPES.
        colour: one of COLOURS.
        row: vertical position of the centre, as a share of the height.
        column: horizontal position of the centre, as a share of the width.
        area: covered share of the picture.
    """

    shape: str
    colour: str
    row: float
    column: float
    area: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


class ShapeOracle:
    """Recognizes coloured regions by their hue and the moments of their outline.

    Args:
        chroma: least difference between a coloured pixel's largest and smallest channel, in [0, 1].
        smallest: least area of a region, as a share of the picture.
    """

    def __init__(self, chroma: float = 0.28, smallest: float = 0.008):
        self.chroma, self.smallest = chroma, smallest

    def __call__(self, images: Float[Tensor, "b 3 H W"]) -> list[tuple[Seen, ...]]:
        """Shapes in each image, [-1, 1], the largest first."""
        return [self.see(image) for image in (images.detach().cpu().float().clamp(-1, 1) + 1) / 2]

    def labels(self, images: Float[Tensor, "b 3 H W"]) -> Int[Tensor, " b"]:
        """Class of the largest shape in each image; -1 if there is none."""
        return torch.tensor([CLASSES.index(seen[0].name) if seen else -1 for seen in self(images)])

    def see(self, picture: Float[Tensor, "3 H W"]) -> tuple[Seen, ...]:
        smooth = blur(picture)
        coloured = smooth.amax(0) - smooth.amin(0) > self.chroma
        regions = components(coloured)
        grey = smooth[:, ~coloured]
        background = grey.median(1).values if grey.shape[1] else torch.zeros(3)
        found = [
            describe(picture, regions == region, background)
            for region in regions.unique().tolist()
            if region and (regions == region).float().mean() >= self.smallest
        ]
        return tuple(sorted(found, key=lambda seen: -seen.area))


def blur(picture: Float[Tensor, "c H W"]) -> Float[Tensor, "c H W"]:
    """Average 3 x 3 pixels, against noise."""
    padded = functional.pad(rearrange(picture, "c h w -> 1 c h w"), (1, 1, 1, 1), mode="replicate")
    return functional.avg_pool2d(padded, 3, stride=1)[0]


def components(mask: Bool[Tensor, "H W"]) -> Int[Tensor, "H W"]:
    """Number connected regions from 1, by spreading the largest number in each."""
    height, width = mask.shape
    numbers = rearrange(torch.arange(1.0, height * width + 1), "(h w) -> 1 1 h w", h=height) * mask
    while True:
        spread = functional.max_pool2d(numbers, 3, stride=1, padding=1) * mask
        if torch.equal(spread, numbers):
            return numbers[0, 0].long()
        numbers = spread


def describe(
    picture: Float[Tensor, "3 H W"], region: Bool[Tensor, "H W"], background: Float[Tensor, " 3"]
) -> Seen:
    """Recognize the shape of a coloured region; pixels are weighted by their share of its colour."""
    near = functional.max_pool2d(rearrange(region.float(), "h w -> 1 1 h w"), 3, stride=1, padding=1)[0, 0]
    colour = main_colour(picture, region)
    way = colour - background
    share = torch.einsum("chw,c->hw", picture - rearrange(background, "c -> c 1 1"), way) / way.square().sum()
    weight = (share.clamp(0, 1) * near).double().numpy()
    height, width = region.shape
    down, right = np.mgrid[:height, :width] + 0.5
    row, column = (float((weight * axis).sum() / weight.sum()) for axis in (down, right))
    outline = moments(weight, down - row, right - column)
    shape = min(SHAPES, key=lambda shape: float(np.square(outline - prototype(shape)).sum()))
    return Seen(shape, name(colour), row / height, column / width, float(weight.mean()))


def main_colour(picture: Float[Tensor, "3 H W"], region: Bool[Tensor, "H W"]) -> Float[Tensor, " 3"]:
    """Median of the more colourful half of a region, since its edges mix with the background."""
    inside = picture[:, region]
    chroma = inside.amax(0) - inside.amin(0)
    return inside[:, chroma >= chroma.median()].median(1).values


def name(colour: Float[Tensor, " 3"]) -> str:
    """Nearest of COLOURS in direction, independent of brightness."""
    direction = functional.normalize(colour, dim=0)
    known = functional.normalize(torch.tensor(list(COLOURS.values())), dim=1)
    return list(COLOURS)[int((known @ direction).argmax())]


def moments(weight: np.ndarray, down: np.ndarray, right: np.ndarray) -> Float[np.ndarray, "3"]:
    """Spread, threefold and fourfold symmetry of an outline, invariant to position, size and rotation.

    `weight` is given on unit pixels. The spread E r^2 is 1 for a disc of the same area; E z^3 and E z^4 with
    z = x + iy are 0 for discs and rings.
    """
    radius2 = weight.sum() / np.pi
    z = (right + 1j * down) / np.sqrt(radius2)
    mean = [(weight * power).sum() / weight.sum() for power in (abs(z) ** 2, z**3, z**4)]
    return np.array([2 * abs(mean[0]), 2 * abs(mean[1]), 4 * abs(mean[2])])


@lru_cache
def prototype(shape: str) -> Float[np.ndarray, "3"]:
    """Moments of an ideal shape."""
    down, right = np.mgrid[-300:300, -300:300] + 0.5
    return moments(Thing(shape, "red", 0.0, 0.0, radius=200.0).inside(down, right).astype(float), down, right)
