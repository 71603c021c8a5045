"""Measurements of sets of images: one loop over batches, shared between processes.

Batches do not depend on the number of processes, so the numbers do not either.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genstack.dist import Process, gather_objects
from genstack.evaluation.agreement import Matcher
from genstack.evaluation.extractor import Extractor, Features
from genstack.evaluation.metrics.neighbours import downsample
from genstack.evaluation.reference import ReferenceSet
from genstack.inputs import ConditionInputs

T = TypeVar("T")


@dataclass(frozen=True)
class ImageSet:
    """Measurements of a set of images, one row per image.

    Args:
        features: features by extractor name.
        pixels: downsampled images.
        labels: class labels.
        matches: 1 for images that show their condition, by matcher name.
    """

    features: dict[str, Features]
    pixels: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    matches: dict[str, Float[Tensor, " n"]]


def image_set(
    images: Float[Tensor, "b c H W"],
    inputs: ConditionInputs,
    extractors: Sequence[Extractor],
    matchers: Sequence[Matcher] = (),
) -> ImageSet:
    """Measure a batch of images."""
    return ImageSet(
        extract(images, extractors),
        downsample(images),
        inputs.labels,
        {matcher.name: matcher(images, inputs) for matcher in matchers},
    )


def extract(images: Float[Tensor, "b c H W"], extractors: Sequence[Extractor]) -> dict[str, Features]:
    """Compute the features of each extractor."""
    return {extractor.name: extractor(images) for extractor in extractors}


def measure(function: Callable[[Sequence[int]], T], count: int, batch_size: int) -> T:
    """Apply a function to batches of indices and concatenate its results in order, in all processes.

    Args:
        function: maps indices to tensors with one row per index, in dataclasses or dictionaries.
        count: number of images.
        batch_size: indices per call.
    """
    batches = [range(first, min(first + batch_size, count)) for first in range(0, count, batch_size)]
    own = Process.from_environment().share(range(len(batches)))
    results = gather_objects({index: function(batches[index]) for index in own})
    gathered = {index: part for parts in results for index, part in parts.items()}
    return concatenate([gathered[index] for index in sorted(gathered)])


def measure_set(reference: ReferenceSet, extractors: Sequence[Extractor], batch_size: int) -> ImageSet:
    """Measure all images of a reference set."""

    def measure_batch(indices: Sequence[int]) -> ImageSet:
        batch = reference.batch(indices)
        return image_set(batch.images, batch.inputs, extractors)

    return measure(measure_batch, len(reference), batch_size)


def concatenate(parts: Sequence[Any]) -> Any:
    """Concatenate tensors along the first axis, also inside equal dataclasses, dictionaries and tuples."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, dict):
        return {name: concatenate([part[name] for part in parts]) for name in first}
    if isinstance(first, tuple):
        return tuple(concatenate(column) for column in zip(*parts, strict=True))
    if is_dataclass(first):
        names = [field.name for field in fields(first)]
        columns = {name: concatenate([getattr(part, name) for part in parts]) for name in names}
        return replace(first, **columns)  # type: ignore[type-var]
    assert first is None, f"cannot concatenate {type(first).__name__}"
    return None
