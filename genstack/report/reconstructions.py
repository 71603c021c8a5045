"""Held-out images, what a compressor makes of them, and where the two differ."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.data import Batch
from genstack.losses.fidelity import psnr
from genstack.model import Model
from genstack.report.picture import Picture, errors, inline, maps, pictures

FIRST, WORST = 6, 3  # images that are shown
BATCH = 16


@dataclass(frozen=True)
class Pair:
    """An image and its reconstruction.

    Args:
        name: of the image.
        original: the image.
        reconstruction: of it.
        error: where they differ.
        psnr: in dB.
    """

    name: str
    original: Picture
    reconstruction: Picture
    error: Picture
    psnr: float


@dataclass(frozen=True)
class Reconstructions:
    """What a compressor keeps of images.

    Args:
        first: the first images as they come.
        worst: those with the least PSNR of all.
        count: how many were reconstructed.
        mean: PSNR over all of them.
        least: of them.
        levels: of 255, that the brightest colour of the maps stands for.
    """

    first: list[Pair]
    worst: list[Pair]
    count: int
    mean: float
    least: float
    levels: float


def reconstruct(model: Model, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
    """Images, through the compressor and back, some at a time."""
    return torch.cat([model.reconstruct(some).cpu() for some in images.split(BATCH)])


def reconstructions(model: Model, held_out: Batch) -> Reconstructions:
    """What the compressor makes of held-out images."""
    images = held_out.images
    others = reconstruct(model, images)
    closeness = psnr(images, others)
    numbers = range(len(images))
    first = list(numbers[:FIRST])
    rest = sorted(numbers[FIRST:], key=lambda number: float(closeness[number]))
    chosen = first + rest[:WORST]
    differences = errors(images[chosen], others[chosen])
    levels = float(differences.max())
    names = [name_of(number, held_out, model.classes) for number in chosen]
    pairs = [
        Pair(
            name,
            original,
            reconstruction,
            inline(error, f"{name}, where they differ"),
            float(closeness[number]),
        )
        for number, name, original, reconstruction, error in zip(
            chosen,
            names,
            pictures(images[chosen], names),
            pictures(others[chosen], [f"{name}, reconstructed" for name in names]),
            maps(differences, levels),
            strict=True,
        )
    ]
    mean, least = float(closeness.mean()), float(closeness.min())
    return Reconstructions(pairs[: len(first)], pairs[len(first) :], len(images), mean, least, levels)


def name_of(number: int, batch: Batch, classes: Sequence[str]) -> str:
    """What to call an image: its number among those held out, and its class where it has one."""
    label = int(batch.labels[number])
    return f"image {number}" + (f", {classes[label]}" if label < len(classes) else "")
