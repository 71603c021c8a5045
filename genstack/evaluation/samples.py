"""Samples of a prior: agreement with their condition, and near-copies of training images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from math import ceil
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.compilation import Mode
from genstack.dist import Process
from genstack.evaluation.agreement import Matcher
from genstack.evaluation.card import Number, Skipped
from genstack.evaluation.extractor import Extractor
from genstack.evaluation.measure import ImageSet
from genstack.evaluation.metrics.neighbours import COPY_QUANTILE, SIDE, near_copies, nearest, vote
from genstack.evaluation.reference import ReferenceSet, as_saved
from genstack.inputs import ConditionInputs
from genstack.model import Model
from genstack.prior import SamplingOptions
from genstack.sampling.compilation import Compilation
from genstack.sampling.compiled import compiled

LISTED = 12  # samples nearest to a training image in a card


@dataclass(frozen=True)
class Sampling:
    """Settings of the samples of an evaluation.

    Args:
        options: sampling options.
        count: number of samples.
        seed: seed of the samples.
        matchers: checks of whether samples show their condition.
        training: most training images to look for copies in.
        precision: precision of the networks.
        batch_size: samples per batch.
        compile: sample with compiled networks: true, false or auto.
        obstacle: tells what keeps this machine from compiling; "" for nothing.
    """

    options: SamplingOptions
    count: int
    seed: int
    matchers: Sequence[Matcher]
    training: int
    precision: Literal["fp32", "bf16"]
    batch_size: int
    compile: Mode
    obstacle: Callable[[], str] = str

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context of the precision."""
        return torch.autocast(device.type, torch.bfloat16, self.precision == "bf16")

    def compilation(self, model: Model) -> Compilation:
        """Choice between compiled networks and networks as they are."""
        batches = len(Process.from_environment().share(range(ceil(self.count / self.batch_size))))
        return Compilation(self.compile, batches, partial(self.compiled, model), self.obstacle)

    @contextmanager
    def compiled(self, model: Model) -> Iterator[None]:
        """Sample with compiled networks within this context."""
        with ExitStack() as stack:
            with self.autocast(model.device):
                stack.enter_context(compiled(model))
            yield

    @property
    def metadata(self) -> dict[str, Any]:
        """Description for the metric card."""
        return {
            "what": "samples",
            "count": self.count,
            "seed": self.seed,
            "options": asdict(self.options),
            "precision": self.precision,
            "conditions": "those of the real images, repeated in order",
            "matchers": {matcher.name: matcher.metadata for matcher in self.matchers},
        }


def sample(
    model: Model,
    reference: ReferenceSet,
    sampling: Sampling,
    compilation: Compilation,
    indices: Sequence[int],
) -> tuple[Float[Tensor, "b c H W"], ConditionInputs]:
    """Sample images by index with the conditions of the real images; return both."""

    inputs = reference.batch(indices).inputs

    def draw(padded: Sequence[int]) -> Tensor:
        rows = [*range(len(indices)), *[len(indices) - 1] * (len(padded) - len(indices))]
        return model.sample(inputs[rows], sampling.options, sampling.seed, padded)

    with sampling.autocast(model.device):
        images = compilation.sample(draw, indices, sampling.batch_size)
    return as_saved(images.float().cpu(), reference.data.preprocessing), inputs


def agreement_numbers(samples: ImageSet, real: ImageSet) -> Iterator[Number | Skipped]:
    """Yield the share of samples that show their condition, by matcher."""
    for name, matches in samples.matches.items():
        known, known_real = (values[~values.isnan()] for values in (matches, real.matches[name]))
        number = f"agreement ({name})"
        if not len(known) or not len(known_real):
            yield Skipped(number, "no caption names exactly one of its classes")
            continue
        count = "" if len(known) == len(matches) else f" {len(known):,}"
        meaning = f"share of{count} samples whose condition the {name} recognises; real: of real images"
        yield Number.mean(number, known, meaning, "higher", real=float(known_real.double().mean()))


@dataclass(frozen=True)
class Space:
    """Vectors of the samples, the training images and the held-out images in one space.

    Args:
        suffix: suffix of metric names.
        description: name of the space in words.
    """

    suffix: str
    description: str
    samples: Float[Tensor, "n d"]
    training: Float[Tensor, "m d"]
    held_out: Float[Tensor, "k d"]


def spaces(
    samples: ImageSet, training: ImageSet, held_out: ImageSet, extractors: Sequence[Extractor]
) -> Iterator[Space]:
    """Yield downsampled pixels, which reveal copies of small images, and the features of each network."""
    sets = samples, training, held_out
    yield Space("", f"{SIDE} x {SIDE} pixels", *(each.pixels for each in sets))
    for name in (extractor.name for extractor in extractors):
        vectors = (each.features[name].vectors for each in sets)
        yield Space(f"-{name}", f"features of {name}", *vectors)


def class_agreement(space: Space, samples: ImageSet, training: ImageSet, held_out: ImageSet) -> Number:
    """Measure the share of samples whose nearest training images have their class."""
    shares = [
        (vote(vectors, space.training, training.labels) == images.labels).double()
        for vectors, images in ((space.samples, samples), (space.held_out, held_out))
    ]
    return Number.mean(
        f"agreement (neighbours{space.suffix})",
        shares[0],
        f"share of samples whose class the nearest training images vote for, in {space.description}; real: "
        "of held-out images",
        "higher",
        real=float(shares[1].float().mean()),
    )


def near_copy_number(space: Space) -> Number:
    """Measure the share of near-copies of training images."""
    return Number(
        f"near-copies{space.suffix}",
        near_copies(space.samples, space.training, space.held_out),
        f"share of samples closer to one of {len(space.training):,} training images, in {space.description}, "
        "than 95 % of held-out images are; real: 5 % by definition",
        "lower",
        real=COPY_QUANTILE,
    )


def closest(space: Space) -> list[tuple[int, int, float]]:
    """Return samples closest to a training image: index, training index, distance."""
    distances, indices = nearest(space.samples, space.training)
    order = distances.argsort(stable=True)[:LISTED].tolist()
    return [(index, int(indices[index]), float(distances[index])) for index in order]
