"""What a prior draws, and the training images that come nearest."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.data import Batch, ImageData
from genstack.errors import UserError
from genstack.evaluation.metrics.neighbours import downsample, near_copies, nearest
from genstack.inputs import ConditionInputs, Prompts
from genstack.model import Model
from genstack.prior import SamplingOptions
from genstack.report.absent import Absent
from genstack.report.picture import Picture, pictures

BATCH = 16
MOST_KNOWN = 5000  # training images that samples are compared with
MOST_WORDS = 80  # letters of what steers an image


@dataclass(frozen=True)
class Drawn:
    """A sample.

    Args:
        picture: the sample.
        nearest: the training image nearest to it; None where the data is not there.
    """

    picture: Picture
    nearest: Picture | None


@dataclass(frozen=True)
class Group:
    """Samples that were steered alike.

    Args:
        told: what steers them, in words; "" for nothing.
        drawn: the samples.
    """

    told: str
    drawn: list[Drawn]


@dataclass(frozen=True)
class Samples:
    """Samples of a prior.

    Args:
        groups: by what steers them.
        count: how many there are.
        seed: of the set.
        known: training images that they were compared with; 0 where the data is not there.
        copies: samples nearer to a training image than 95 % of held-out images are; None where nobody knows.
    """

    groups: list[Group]
    count: int
    seed: int
    known: int
    copies: int | None


def samples(
    model: Model, count: int, seed: int, data: ImageData | Absent, held_out: Batch | Absent
) -> Samples:
    """Samples of a model, as it has learned them.

    Args:
        model: with a prior, or with latents that need none.
        count: how many to draw.
        seed: of the set.
        data: to look for the nearest training images in.
        held_out: images that were laid aside.

    Raises:
        UserError: there is no prior, or none that draws without a wish.
    """
    if not model.draws:
        raise UserError("a compressor alone draws nothing: it needs a prior over its codes")
    if count < 1:
        raise UserError("none were asked for")
    inputs = steered(model, count, held_out)
    images = draw(model, inputs, seed)
    shown = pictures(images, [f"sample {number}" for number in range(count)])
    nearest: list[Picture | None] = [None] * count
    known: int = 0
    copies: int | None = None
    if data and held_out:
        numbers, known, copies = look_up(images, data, held_out)
        found = data.samples(data.split.training)
        similar = torch.cat([found[0, number].images for number in numbers])
        nearest = [
            *pictures(similar, [f"training image nearest to sample {number}" for number in range(count)])
        ]
    groups: dict[str, list[Drawn]] = {}
    for told, picture, near in zip(model.condition.modality.describe(inputs), shown, nearest, strict=True):
        words = ", ".join(told.values())
        short = words if len(words) <= MOST_WORDS else words[: MOST_WORDS - 1] + "…"
        groups.setdefault(short, []).append(Drawn(picture, near))
    return Samples([Group(told, drawn) for told, drawn in groups.items()], count, seed, known, copies)


def steered(model: Model, count: int, held_out: Batch | Absent) -> ConditionInputs:
    """What steers the samples: held-out images in turn, or whatever the condition takes without them."""
    if not held_out:
        return model.condition.modality.select(Prompts(), count)
    inputs = held_out.inputs
    return model.condition.modality.preview(inputs[[number % len(inputs) for number in range(count)]])


def draw(model: Model, inputs: ConditionInputs, seed: int) -> Float[Tensor, "b c H W"]:
    """Samples, some at a time."""
    batches = torch.arange(len(inputs)).split(BATCH)
    drawn = [model.sample(inputs[some.tolist()], SamplingOptions(), seed, some.tolist()) for some in batches]
    return torch.cat(drawn).cpu()


def look_up(images: Float[Tensor, "b c H W"], data: ImageData, held_out: Batch) -> tuple[list[int], int, int]:
    """The numbers of the nearest training images, how many were looked at, and the number of near-copies."""
    numbers = data.split.training[:MOST_KNOWN]
    training, samples = small_ones(data, numbers), downsample(images)
    copies = near_copies(samples, training, downsample(held_out.images))
    return nearest(samples, training)[1].tolist(), len(numbers), round(len(images) * copies)


def small_ones(data: ImageData, numbers: Sequence[int]) -> Float[Tensor, "n d"]:
    """Small images, averaged down one by one, so that as many as there are fit into memory."""
    found = data.samples(numbers)
    return torch.cat([downsample(found[0, number].images) for number in range(len(numbers))])
