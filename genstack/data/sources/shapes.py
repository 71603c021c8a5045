"""Coloured shapes drawn on demand, with class labels, captions and segmentation maps."""

import itertools
import re
from collections.abc import Sequence
from functools import lru_cache
from random import Random

import numpy as np
from jaxtyping import Float, Int, Int64
from PIL import Image
from torch import Tensor, from_numpy

from genstack.data.images import Preprocessing
from genstack.data.scene import CLASSES, COLOURS, SHAPES, Scene, Thing
from genstack.data.seeding import mix
from genstack.data.source import PictureInfo, Source
from genstack.errors import UserError

SEED = 0


class ShapesSource(Source):
    """The built-in `shapes`: image i is a function of i alone, drawn at any size.

    `shapes` draws one thing per image, of 32 classes such as `red circle`: eight colours, four shapes.
    `shapes:pairs` draws two things of different colours, beside or above one another, without classes.
    There are 10,000 images, or as many as `shapes:50000` and `shapes:pairs:50000` say.
    """

    def __init__(self, name: str):
        kind, _, number = name.removeprefix("shapes").removeprefix(":").rpartition(":")
        kind, number = (number, "") if number == "pairs" else (kind, number)
        self.count = int(number or 10_000)
        self.pairs = kind == "pairs"
        if kind not in ("", "pairs") or self.count < 1:
            raise UserError(f"invalid data source {name}; use shapes, shapes:pairs or shapes:pairs:50000")
        self.class_names = () if self.pairs else CLASSES

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return ("shapes", "shapes:pairs")

    @classmethod
    def claims(cls, name: str) -> bool:
        return re.fullmatch(r"shapes(:pairs)?(:\d+)?", name) is not None

    def __len__(self) -> int:
        return self.count

    def key(self, number: int) -> str:
        return f"shapes/{number}"

    def label(self, number: int) -> int:
        return 0 if self.pairs else single_label(number)

    def labels_of(self, numbers: Sequence[int]) -> Int64[np.ndarray, " n"]:
        labels = itertools.repeat(0) if self.pairs else map(single_label, numbers)
        return np.fromiter(labels, np.int64, len(numbers))

    def caption(self, number: int) -> str:
        return self.scene(number).caption

    def info(self, number: int) -> PictureInfo:
        return PictureInfo(0, 0, "drawn at any size")

    def image(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        picture = self.scene(number).draw(preprocessing.height, preprocessing.width)
        drawn = Image.fromarray((picture * 255 + 0.5).astype(np.uint8))
        return preprocessing.pixels(drawn)

    def condition_image(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        """The segmentation map: each thing in its plain colour, on black."""
        segments = self.scene(number).segmentation(preprocessing.height, preprocessing.width)
        plain = np.array([(0.0, 0.0, 0.0), *(COLOURS[name.split()[0]] for name in CLASSES)])
        drawn = Image.fromarray((plain[segments] * 255 + 0.5).astype(np.uint8))
        return preprocessing.pixels(drawn)

    def segmentation(self, number: int, height: int, width: int) -> Int[Tensor, "h w"]:
        """0 for the background, 1 + class elsewhere; see `Scene.segmentation`."""
        return from_numpy(self.scene(number).segmentation(height, width))

    def scene(self, number: int) -> Scene:
        """The scene of image `number`."""
        return make_scene(number, self.pairs)


def make_scene(number: int, pairs: bool) -> Scene:
    """The scene of image `number`, with one thing or two."""
    chance = Random(mix(SEED, number, int(pairs)))  # numpy's is slow to seed
    colours = chance.sample(list(COLOURS), 2)
    places = pair(chance) if pairs else single(chance)
    things = tuple(
        Thing(
            shape=chance.choice(SHAPES),
            colour=colour,
            row=row,
            column=column,
            radius=radius,
            tilt=chance.uniform(-10, 10),
            light=chance.uniform(0.94, 1.02),
        )
        for colour, (row, column, radius) in zip(colours, places, strict=False)
    )
    brightness = chance.choice([chance.uniform(0.05, 0.3), chance.uniform(0.75, 0.95)])
    return Scene(things, brightness, (chance.uniform(-0.05, 0.05), chance.uniform(-0.05, 0.05)))


@lru_cache(2**16)
def single_label(number: int) -> int:
    """Label of image `number` of `shapes`; kept, since every training in a process asks for all of them."""
    return CLASSES.index(make_scene(number, False).things[0].name)


def single(chance: Random) -> list[tuple[float, float, float]]:
    """Row, column and radius of one thing inside the picture."""
    radius = chance.uniform(0.18, 0.3)
    row, column = (chance.uniform(1.45 * radius, 1 - 1.45 * radius) for _ in range(2))
    return [(row, column, radius)]


def pair(chance: Random) -> list[tuple[float, float, float]]:
    """Row, column and radius of two things that do not touch, side by side or one above the other."""
    radii = [chance.uniform(0.13, 0.16) for _ in range(2)]
    along = [
        chance.uniform(low + 1.45 * r, low + 0.5 - 1.45 * r) for r, low in zip(radii, (0, 0.5), strict=True)
    ]
    across = [chance.uniform(0.4, 0.6) for _ in range(2)]
    order = chance.sample(range(2), 2)
    along = [along[i] for i in order]
    radii = [radii[i] for i in order]
    rows, columns = (across, along) if chance.random() < 0.5 else (along, across)
    return list(zip(rows, columns, radii, strict=True))
