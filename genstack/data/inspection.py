"""Inspection of a source: sizes, unreadable files, duplicates, and a contact sheet."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from math import prod

import torch
from PIL import Image
from torch import Tensor

from genstack.data.image_data import ImageData
from genstack.data.sheet import sheet
from genstack.data.source import FURTHER, PictureInfo
from genstack.data.text import clean
from genstack.data.transforms import Augmentation
from genstack.errors import UserError

SHOWN = 16  # images on a contact sheet, lines in a list


@dataclass
class Inspection:
    """Results of an inspection.

    Args:
        readable: numbers of the readable images.
        unreadable: error of each other image.
        stored: number of pictures of each size and mode.
        further: number of pages and frames beyond the first of each file.
        contents: keys of images by a hash of their pixels.
    """

    readable: list[int] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    stored: Counter[PictureInfo] = field(default_factory=Counter)
    further: int = 0
    contents: dict[bytes, list[str]] = field(default_factory=lambda: defaultdict(list))

    def lines(self) -> list[str]:
        """Lines about sizes, modes, unreadable images and duplicates."""
        copies = [" = ".join(map(clean, keys)) for keys in self.contents.values() if len(keys) > 1]
        return [
            *describe_sizes(self.stored),
            *[f"{self.further} {FURTHER}"] * bool(self.further),
            *list_lines("unreadable", self.unreadable),
            *list_lines("sets of images with equal pixels", copies),
        ]


def inspect_images(data: ImageData) -> Inspection:
    """Read every image."""
    found, source = Inspection(), data.catalog
    for number in range(len(source)):
        try:
            pixels = source.image(number, data.preprocessing)
            if data.class_names:
                source.label(number)
            stored = source.info(number)
            found.stored[replace(stored, frames=1)] += 1
            found.further += stored.frames - 1
        except UserError as error:
            found.unreadable.append(str(error))
            continue
        found.readable.append(number)
        digest = blake2b(repr(pixels.shape).encode() + pixels.numpy().tobytes()).digest()
        found.contents[digest].append(source.key(number))
    return found


def describe_sizes(stored: Counter[PictureInfo]) -> list[str]:
    """Describe the smallest and largest picture by number of pixels, and the modes."""
    modes: Counter[str] = Counter()
    for picture, count in stored.items():
        modes[picture.mode] += count
    lines = ["modes: " + ", ".join(f"{mode} {count}" for mode, count in modes.most_common())]
    sides = {(picture.height, picture.width) for picture in stored if picture.height}
    if sides:
        low, high = (f"{h} x {w}" for h, w in (extreme(sides, key=prod) for extreme in (min, max)))
        lines.insert(0, f"sizes, height x width: {len(sides)} different, from {low} to {high}")
    return lines


def list_lines(what: str, lines: list[str]) -> list[str]:
    """A line with the count, then the first lines."""
    more = [f"  and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [f"{len(lines)} {what}", *(f"  {line}" for line in lines[:SHOWN]), *more]


def contact_sheet(data: ImageData, numbers: list[int], augmentation: Augmentation) -> Image.Image:
    """Preprocessed images from all over a source, each above an augmented one."""
    count = min(SHOWN, len(numbers))
    columns = min(SHOWN // 2, count)
    chosen = [numbers[index * len(numbers) // count] for index in range(count)]
    images: list[Tensor] = []
    labels: list[str] = []
    for first in range(0, count, columns):
        row = chosen[first : first + columns]
        missing = columns - len(row)
        names = [data.catalog.caption(number) or clean(data.catalog.key(number)) for number in row]
        for variation, below in ((Augmentation(), names), (augmentation, ["augmented"] * len(row))):
            samples = data.samples(row, variation)
            seen = [samples[0, index].images for index in range(len(row))]
            images += [*seen, *[torch.ones_like(seen[0])] * missing]
            labels += [*below, *[""] * missing]
    return sheet(torch.cat(images), columns, labels, title=data.summary())
