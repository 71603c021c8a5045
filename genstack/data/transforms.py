"""Transforms from a picture of any size to the model's size: center crop, or random augmentation."""

from dataclasses import dataclass
from math import cos, radians, sin, sqrt
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from genstack.data.images import Preprocessing, read
from genstack.data.seeding import mix
from genstack.errors import UserError


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of training images, a function of seed, epoch and image alone.

    Args:
        crop: where the crop lies along the longer side, and anywhere when zoomed: `center` or `random`. Or
            `resized`: of random area, proportions and place (torchvision's RandomResizedCrop), then scaled.
        area: smallest and largest share of the picture's area in a `resized` crop.
        proportions: smallest and largest width divided by height of a `resized` crop.
        zoom: smallest and largest magnification, at least 1; with 1.0 and 1.3 sides shrink by up to 1.3.
        flip: probability of mirroring left and right.
        rotate: largest angle in degrees, either way; the border's colours fill the corners.
        shift: largest shift, as a share of height and width, either way; the border's colours fill the gap.
    """

    crop: Literal["center", "random", "resized"] = "center"
    zoom: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.0
    rotate: float = 0.0
    shift: float = 0.0
    area: tuple[float, float] = (0.08, 1.0)
    proportions: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        limits = {
            "zoom": (1 <= self.zoom[0] <= self.zoom[1], "two rising numbers of at least 1"),
            "flip": (0 <= self.flip <= 1, "a probability from 0 to 1"),
            "rotate": (0 <= self.rotate <= 180, "an angle from 0 to 180 degrees"),
            "shift": (0 <= self.shift < 1, "a share from 0 to below 1"),
            "area": (0 < self.area[0] <= self.area[1] <= 1, "two rising shares above 0 and up to 1"),
            "proportions": (0 < self.proportions[0] <= self.proportions[1], "two rising numbers above 0"),
        }
        for name, (kept, limit) in limits.items():
            if not kept:
                raise UserError(f"augmentation {name} {getattr(self, name)} is out of range; give {limit}")
        if self.crop == "resized" and self.zoom != (1, 1):
            raise UserError(f"zoom {self.zoom} has no meaning with crop: resized; set area instead")

    @property
    def moves_crop(self) -> bool:
        """Return True if the position of crops varies."""
        return self.crop != "center" or self.zoom[1] > 1

    def edges(
        self, sides: tuple[int, int], size: tuple[int, int], seed: int, epoch: int, index: int
    ) -> tuple[float, float, float, float]:
        """Top, left, bottom and right edge of the crop that `__call__` takes, as shares of the sides.

        Of a mirrored picture, they are those in its mirror image; `rotate` and `shift` are not counted.
        """
        top, left, tall, wide = self._crop_box(sides, size, seed, epoch, index)
        mirror = self._draw_numbers(seed, epoch, index)[3]
        height, width = sides
        edges = (top / height, left / width, (top + tall) / height, (left + wide) / width)
        return (edges[0], 1 - edges[3], edges[2], 1 - edges[1]) if mirror < self.flip else edges

    def _draw_numbers(self, seed: int, epoch: int, index: int) -> list[float]:
        generator = torch.Generator().manual_seed(mix(seed, epoch, index))
        return torch.rand(7, generator=generator).tolist()

    def _crop_box(
        self, sides: tuple[int, int], size: tuple[int, int], seed: int, epoch: int, index: int
    ) -> tuple[int, int, int, int]:
        """Top, left, height and width of the crop."""
        if self.crop == "resized":
            generator = torch.Generator().manual_seed(mix(seed, epoch, index, 1))
            return random_resized_crop(sides, self.area, self.proportions, generator)
        (low, high), (zoom, row, column, *_) = self.zoom, self._draw_numbers(seed, epoch, index)
        place = (row, column) if self.crop == "random" else (0.5, 0.5)
        return crop_box(sides, size, low + zoom * (high - low), place)

    def __call__(
        self, image: Float[Tensor, "c h w"], size: tuple[int, int], seed: int, epoch: int, index: int
    ) -> Float[Tensor, "c H W"]:
        """Augment image `index` for this epoch, at this height and width."""
        mirror, angle, down, right = self._draw_numbers(seed, epoch, index)[3:]
        height, width = image.shape[-2:]
        image = crop_then_resize(image, self._crop_box((height, width), size, seed, epoch, index), size)
        if mirror < self.flip:
            image = image.flip(-1)
        if self.rotate or self.shift:
            turn, shift = self.rotate * (2 * angle - 1), [self.shift * (2 * way - 1) for way in (down, right)]
            image = rotate_and_shift(image, turn, (shift[0] * size[0], shift[1] * size[1]))
        return image


def crop_box(
    sides: tuple[int, int], size: tuple[int, int], zoom: float, place: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Top, left, height and width, in whole pixels, of a crop with the proportions of `size`.

    It is as large as fits into a picture of these sides, divided by `zoom`. `place` is where it lies, as a
    share of the free way from the top and from the left.
    """
    (height, width), (rows, columns) = sides, size
    scale = max(rows / height, columns / width) * zoom
    tall, wide = (
        min(side, max(1, round(target / scale))) for side, target in ((height, rows), (width, columns))
    )
    top, left = (
        round((side - part) * share)
        for side, part, share in ((height, tall, place[0]), (width, wide, place[1]))
    )
    return top, left, tall, wide


def random_resized_crop(
    sides: tuple[int, int],
    area: tuple[float, float],
    proportions: tuple[float, float],
    generator: torch.Generator,
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a crop of random area and proportions (Szegedy et al. 2014, 1409.4842).

    As torchvision draws it, number by number: after ten crops that do not fit, the largest in the middle.
    """
    height, width = sides
    for _ in range(10):
        target = height * width * torch.empty(1).uniform_(*area, generator=generator).item()
        logarithms = torch.log(torch.tensor(proportions)).tolist()
        ratio = torch.exp(torch.empty(1).uniform_(*logarithms, generator=generator)).item()
        wide, tall = round(sqrt(target * ratio)), round(sqrt(target / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            top, left = (
                int(torch.randint(0, free + 1, (1,), generator=generator))
                for free in (height - tall, width - wide)
            )
            return top, left, tall, wide
    low, high = proportions
    tall, wide = height, width
    if width / height < low:
        tall = round(width / low)
    elif width / height > high:
        wide = round(height * high)
    return (height - tall) // 2, (width - wide) // 2, max(1, tall), max(1, wide)


def crop_and_resize(
    image: Float[Tensor, "c h w"],
    size: tuple[int, int],
    zoom: float = 1.0,
    place: tuple[float, float] = (0.5, 0.5),
) -> Float[Tensor, "c H W"]:
    """Crop to the proportions of `size`, as `crop_box` says, then scale.

    Cropping comes first, so that a long thin picture needs little memory.
    """
    height, width = image.shape[-2:]
    return crop_then_resize(image, crop_box((height, width), size, zoom, place), size)


def crop_then_resize(
    image: Float[Tensor, "c h w"], crop: tuple[int, int, int, int], size: tuple[int, int]
) -> Float[Tensor, "c H W"]:
    """A crop, by its top, left, height and width, at another size."""
    top, left, tall, wide = crop
    cropped = image[:, top : top + tall, left : left + wide]
    if (tall, wide) == size:
        return cropped
    batch = rearrange(cropped, "c h w -> 1 c h w")
    return functional.interpolate(batch, size, mode="bicubic", antialias=True)[0].clamp(
        -1, 1
    )  # it overshoots


def rotate_and_shift(
    image: Float[Tensor, "c h w"], degrees: float, shift: tuple[float, float]
) -> Float[Tensor, "c h w"]:
    """Turn clockwise about the centre, then shift down and right, in pixels; the border goes on outwards."""
    (height, width), (down, right) = image.shape[-2:], shift
    cosine, sine = cos(radians(degrees)), sin(radians(degrees))
    back = [  # from a place in the result to one in the image, both from -1 to 1
        [cosine, sine * height / width, -2 * (cosine * right + sine * down) / width],
        [-sine * width / height, cosine, -2 * (cosine * down - sine * right) / height],
    ]
    places = functional.affine_grid(torch.tensor([back]), [1, *image.shape], align_corners=False)
    batch = rearrange(image, "c h w -> 1 c h w")
    return functional.grid_sample(batch, places, padding_mode="border", align_corners=False)[0]


def load(path: Path, preprocessing: Preprocessing) -> Float[Tensor, "c H W"]:
    """A picture file as a model sees it outside training: centred, in [-1, 1]."""
    image = read(path, preprocessing.channels, preprocessing.background, raw=preprocessing.window is not None)
    return crop_and_resize(preprocessing.to_model(image), (preprocessing.height, preprocessing.width))
