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

from genstack.data.images import Preprocessing
from genstack.data.seeding import mix
from genstack.errors import UserError


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of training images, a function of seed, epoch and image alone.

    Args:
        crop: position of the crop: `center` or `random`; or `resized` for random area, proportions and
            position (torchvision's RandomResizedCrop).
        area: smallest and largest area of a `resized` crop, as a share of the picture's.
        proportions: smallest and largest width divided by height of a `resized` crop.
        zoom: smallest and largest magnification, at least 1; 1.3 divides the sides of a crop by 1.3.
        flip: probability of mirroring left and right.
        rotate: largest angle in degrees, in both directions; the border is repeated.
        shift: largest shift, as a share of height and width, in both directions; the border is repeated.
    """

    crop: Literal["center", "random", "resized"] = "center"
    zoom: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.0
    rotate: float = 0.0
    shift: float = 0.0
    area: tuple[float, float] = (0.08, 1.0)
    proportions: tuple[float, float] = (0.75, 1.3333333333333333)

    def __post_init__(self) -> None:
        limits = {
            "zoom": (1 <= self.zoom[0] <= self.zoom[1], "two rising numbers of at least 1"),
            "flip": (0 <= self.flip <= 1, "a probability from 0 to 1"),
            "rotate": (0 <= self.rotate <= 180, "an angle from 0 to 180 degrees"),
            "shift": (0 <= self.shift < 1, "a share from 0 to below 1"),
            "area": (0 < self.area[0] <= self.area[1] <= 1, "two rising shares above 0 and up to 1"),
            "proportions": (0 < self.proportions[0] <= self.proportions[1], "two rising numbers above 0"),
        }
        for name, (valid, limit) in limits.items():
            if not valid:
                raise UserError(f"invalid augmentation {name} {getattr(self, name)}; expected {limit}")
        if self.crop == "resized" and self.zoom != (1, 1):
            raise UserError(f"zoom {self.zoom} does not apply to crop: resized; set area instead")
        for name in ("area", "proportions"):
            if self.crop != "resized" and getattr(self, name) != getattr(Augmentation, name):
                raise UserError(
                    f"{name} {getattr(self, name)} does not apply to crop: {self.crop}; set crop to resized"
                )

    @property
    def moves_crop(self) -> bool:
        """Return True if the position of crops varies."""
        return self.crop != "center" or self.zoom[1] > 1

    def edges(
        self, sides: tuple[int, int], size: tuple[int, int], seed: int, epoch: int, index: int
    ) -> tuple[float, float, float, float]:
        """Top, left, bottom and right edge of the crop in `__call__`, as shares of the picture's sides.

        For a mirrored crop, these are edges in the mirrored picture. `rotate` and `shift` are ignored.
        """
        top, left, tall, wide = self._crop_box(sides, size, seed, epoch, index)
        mirror = self._random_numbers(seed, epoch, index)[3]
        height, width = sides
        edges = (top / height, left / width, (top + tall) / height, (left + wide) / width)
        return (edges[0], 1 - edges[3], edges[2], 1 - edges[1]) if mirror < self.flip else edges

    def _random_numbers(self, seed: int, epoch: int, index: int) -> list[float]:
        generator = torch.Generator().manual_seed(mix(seed, epoch, index))
        return torch.rand(7, generator=generator).tolist()

    def _crop_box(
        self, sides: tuple[int, int], size: tuple[int, int], seed: int, epoch: int, index: int
    ) -> tuple[int, int, int, int]:
        """Top, left, height and width of the crop."""
        if self.crop == "resized":
            generator = torch.Generator().manual_seed(mix(seed, epoch, index, 1))
            return random_resized_crop(sides, self.area, self.proportions, generator)
        (low, high), (zoom, row, column, *_) = self.zoom, self._random_numbers(seed, epoch, index)
        place = (row, column) if self.crop == "random" else (0.5, 0.5)
        return crop_box(sides, size, low + zoom * (high - low), place)

    def __call__(
        self, image: Float[Tensor, "c h w"], size: tuple[int, int], seed: int, epoch: int, index: int
    ) -> Float[Tensor, "c H W"]:
        """Augment image `index` for this epoch, at this height and width."""
        mirror, angle, down, right = self._random_numbers(seed, epoch, index)[3:]
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
    """Top, left, height and width in pixels of the largest crop with the proportions of `size`.

    Its sides are divided by `zoom`. `place` is its position between top and bottom and between left and
    right, from 0 to 1.
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

    The same numbers as torchvision's: after ten crops that do not fit, the largest center crop.
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
    """Crop with `crop_box`, then resize; in this order, a long thin picture needs little memory."""
    height, width = image.shape[-2:]
    return crop_then_resize(image, crop_box((height, width), size, zoom, place), size)


def crop_then_resize(
    image: Float[Tensor, "c h w"], crop: tuple[int, int, int, int], size: tuple[int, int]
) -> Float[Tensor, "c H W"]:
    """Cut out a crop, given by top, left, height and width, and resize it."""
    top, left, tall, wide = crop
    cropped = image[:, top : top + tall, left : left + wide]
    if (tall, wide) == size:
        return cropped
    batch = rearrange(cropped, "c h w -> 1 c h w")
    resized = functional.interpolate(batch, size, mode="bicubic", antialias=True)[0]
    return resized.clamp(-1, 1)  # bicubic interpolation overshoots


def rotate_and_shift(
    image: Float[Tensor, "c h w"], degrees: float, shift: tuple[float, float]
) -> Float[Tensor, "c h w"]:
    """Rotate clockwise about the centre, then shift down and right in pixels; the border is repeated."""
    (height, width), (down, right) = image.shape[-2:], shift
    cosine, sine = cos(radians(degrees)), sin(radians(degrees))
    inverse = [  # from a position in the result to one in the image, both from -1 to 1
        [cosine, sine * height / width, -2 * (cosine * right + sine * down) / width],
        [-sine * width / height, cosine, -2 * (cosine * down - sine * right) / height],
    ]
    grid = functional.affine_grid(torch.tensor([inverse]), [1, *image.shape], align_corners=False)
    batch = rearrange(image, "c h w -> 1 c h w")
    return functional.grid_sample(batch, grid, padding_mode="border", align_corners=False)[0]


def load(path: Path, preprocessing: Preprocessing) -> Float[Tensor, "c H W"]:
    """Read a picture file, center-cropped to the model's size, in [-1, 1]."""
    image = preprocessing.to_model(preprocessing.read(path))
    return crop_and_resize(image, (preprocessing.height, preprocessing.width))
