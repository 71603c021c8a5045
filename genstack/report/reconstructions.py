"""Held-out images, their reconstructions and error maps."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.data import Batch
from genstack.losses.fidelity import psnr
from genstack.model import Model
from genstack.report.picture import Picture, error_maps, errors, pictures, thumbnail

FIRST, WORST = 6, 3  # images on the page
BATCH_SIZE = 16


@dataclass(frozen=True)
class Pair:
    """An image, its reconstruction and the error map; PSNR in dB."""

    name: str
    original: Picture
    reconstruction: Picture
    error: Picture
    psnr: float


@dataclass(frozen=True)
class Reconstructions:
    """Reconstructions of held-out images.

    Args:
        first: the first images.
        worst: the other images with the lowest PSNR.
        count: number of reconstructed images.
        mean: PSNR over all of them.
        least: lowest PSNR.
        levels: error of the brightest colour in the error maps, in levels of 255.
    """

    first: list[Pair]
    worst: list[Pair]
    count: int
    mean: float
    least: float
    levels: float


def reconstruct(model: Model, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
    """Reconstruct images in batches."""
    return torch.cat([model.reconstruct(batch).cpu() for batch in images.split(BATCH_SIZE)])


def reconstructions(model: Model, held_out: Batch) -> Reconstructions:
    """Reconstruct held-out images and choose those to show."""
    images = held_out.images
    others = reconstruct(model, images)
    similarity = psnr(images, others)
    first = list(range(len(images)))[:FIRST]
    rest = sorted(range(FIRST, len(images)), key=lambda index: float(similarity[index]))
    shown = first + rest[:WORST]
    differences = errors(images[shown], others[shown])
    levels = float(differences.max())
    names = [image_name(index, held_out, model.classes) for index in shown]
    columns = zip(
        names,
        pictures(images[shown], names),
        pictures(others[shown], [f"{name}, reconstructed" for name in names]),
        map(thumbnail, error_maps(differences, levels), [f"{name}, error map" for name in names]),
        similarity[shown].tolist(),
        strict=True,
    )
    pairs = [Pair(*column) for column in columns]
    mean, least = float(similarity.mean()), float(similarity.min())
    return Reconstructions(pairs[: len(first)], pairs[len(first) :], len(images), mean, least, levels)


def image_name(index: int, batch: Batch, classes: Sequence[str]) -> str:
    """Name a held-out image by its index, and its class if it has one."""
    label = int(batch.labels[index])
    return f"image {index}" + (f", {classes[label]}" if label < len(classes) else "")
