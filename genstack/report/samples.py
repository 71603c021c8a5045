"""Samples of a prior with their nearest training images."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.data import Batch, ImageData
from genstack.errors import UserError
from genstack.evaluation.metrics.neighbours import downsample, near_copies, nearest
from genstack.inputs import ConditionInputs
from genstack.model import Model
from genstack.prior import SamplingOptions
from genstack.report.missing import Missing
from genstack.report.picture import Picture, pictures

BATCH_SIZE = 16
MAX_TRAINING = 5000  # training images that samples are compared with
MAX_CAPTION = 80  # characters of a condition


@dataclass(frozen=True)
class Sample:
    """A sample and its nearest training image; None without the data."""

    picture: Picture
    nearest: Picture | None


@dataclass(frozen=True)
class Group:
    """Samples with the same condition, described in words; "" for none."""

    condition: str
    samples: list[Sample]


@dataclass(frozen=True)
class Samples:
    """Samples of a prior.

    Args:
        groups: samples by condition.
        count: number of samples.
        seed: seed of the samples.
        training: number of training images that they were compared with; 0 without the data.
        copies: number of near-copies; None without the data.
    """

    groups: list[Group]
    count: int
    seed: int
    training: int
    copies: int | None


def samples(
    model: Model, count: int, seed: int, data: ImageData | Missing, held_out: Batch | Missing
) -> Samples:
    """Sample with default options.

    Args:
        model: prior or VAE.
        count: number of samples.
        seed: seed of the samples.
        data: training data, to find the nearest images.
        held_out: images whose conditions the samples take in order.

    Raises:
        UserError: the model cannot sample, or needs a prompt.
    """
    if not model.can_sample:
        raise UserError("a compressor cannot sample without a prior over its codes")
    if count < 1:
        raise UserError("no samples were requested")
    inputs = condition_inputs(model, count, held_out)
    images = sample_images(model, inputs, seed)
    neighbours: list[Picture | None] = [None] * count
    training, copies = 0, None
    if data and held_out:
        indices = data.split.training[:MAX_TRAINING]
        known = data.samples(indices)
        vectors = torch.cat([downsample(known[0, index].images) for index in range(len(indices))])
        found = nearest(downsample(images), vectors)[1].tolist()
        closest = torch.cat([known[0, index].images for index in found])
        neighbours = [*pictures(closest, [f"training image nearest to sample {n}" for n in range(count)])]
        share = near_copies(downsample(images), vectors, downsample(held_out.images))
        training, copies = len(indices), round(count * share)
    groups: dict[str, list[Sample]] = {}
    shown = pictures(images, [f"sample {n}" for n in range(count)])
    for text, picture, neighbour in zip(
        model.condition.modality.describe(inputs), shown, neighbours, strict=True
    ):
        condition = ", ".join(text.values())
        if len(condition) > MAX_CAPTION:
            condition = condition[: MAX_CAPTION - 1] + "…"
        groups.setdefault(condition, []).append(Sample(picture, neighbour))
    return Samples([Group(*group) for group in groups.items()], count, seed, training, copies)


def condition_inputs(model: Model, count: int, held_out: Batch | Missing) -> ConditionInputs:
    """Repeat the conditions of held-out images in order; choose defaults without them."""
    if not held_out:
        return model.inputs(count)
    inputs = held_out.inputs
    return model.condition.modality.preview(inputs[[index % len(inputs) for index in range(count)]])


def sample_images(model: Model, inputs: ConditionInputs, seed: int) -> Float[Tensor, "b c H W"]:
    """Sample images in batches."""
    batches = [batch.tolist() for batch in torch.arange(len(inputs)).split(BATCH_SIZE)]
    return torch.cat([model.sample(inputs[batch], SamplingOptions(), seed, batch).cpu() for batch in batches])
