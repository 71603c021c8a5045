"""Evaluate a run on real images, or one folder of images against another."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.conditions import ClassLabels
from genstack.data import ImageData
from genstack.data.images import write
from genstack.data.sheet import sheet
from genstack.dist import Process, gather_objects
from genstack.errors import UserError
from genstack.evaluation import reconstructions, samples
from genstack.evaluation.card import Card, Number, Skipped
from genstack.evaluation.distances import distances, sample_quality
from genstack.evaluation.extractor import Extractor, Features
from genstack.evaluation.folders import are_pairs, read_images, sample_metadata
from genstack.evaluation.measure import ImageSet, extract, image_set, measure, measure_set
from genstack.evaluation.networks import Networks
from genstack.evaluation.reconstructions import Reconstructions
from genstack.evaluation.reference import ReferenceSet
from genstack.evaluation.samples import Sampling, Space
from genstack.inputs import ConditionInputs
from genstack.model import Model
from genstack.prior import CodePrior, LatentPrior

LISTED = 8  # worst and best images in a card

Results = Iterable[Number | Skipped]
Listing = dict[str, list[dict[str, Any]]]
#: From indices to samples and their condition inputs.
Draw = Callable[[Sequence[int]], tuple[Tensor, ConditionInputs]]


def evaluate_run(
    model: Model,
    reference: ReferenceSet,
    training: ImageData | None,
    sampling: Sampling | None,
    networks: Networks,
    batch_size: int,
    folder: Path,
    rates: Sequence[float] = (),
) -> Card | None:
    """Evaluate a run; return its card in the first process and None in the others.

    Args:
        model: model of the run.
        reference: the real images.
        training: data of the training; None if it is unknown.
        sampling: settings of the samples; None for a compressor.
        networks: networks of features and LPIPS.
        batch_size: images per batch.
        folder: folder for pictures.
        rates: shares of codes that are perturbed to forecast samples.
    """
    extractors, matchers = networks.extractors, () if sampling is None else sampling.matchers

    def measure_real(indices: Sequence[int]) -> tuple[ImageSet, Reconstructions]:
        batch = reference.batch(indices)
        real = image_set(batch.images, batch.inputs, extractors, matchers)
        return real, reconstructions.measure_batch(
            model, batch, reference.data.preprocessing, networks, indices, rates
        )

    first = Process.from_environment().rank == 0
    real, reconstructed = measure(measure_real, len(reference), batch_size)
    nats = training_nats(model, reference, training, batch_size)
    results: list[Results] = [networks.missing]
    results.append(reconstruction_results(model, extractors, real, reconstructed, nats))
    images = list_extremes(model, reference, reconstructed, folder) if first else {}
    protocol = {"generated": {"what": "reconstructions", "perturbed": list(rates)}, **networks.protocol}
    if sampling is not None:
        protocol["samples"] = sampling.metadata
        found, nearest = evaluate_samples(
            model, reference, training, sampling, extractors, batch_size, real, folder
        )
        results.append(found)
        images |= nearest
    unreadable = chain(*(reasons.items() for reasons in gather_objects(reference.data.unreadable.reasons)))
    if not first:
        return None
    protocol["real"] = {**reference.metadata, "unreadable": dict(sorted(unreadable))}
    return Card.of("compressor" if sampling is None else "prior", protocol, chain(*results), images)


def evaluate_samples(
    model: Model,
    reference: ReferenceSet,
    training: ImageData | None,
    sampling: Sampling,
    extractors: Sequence[Extractor],
    batch_size: int,
    real: ImageSet,
    folder: Path,
) -> tuple[Results, Listing]:
    """Compare samples with real and with training images; the first process lists the nearest.

    Args:
        model: model of the run.
        reference: the real images.
        training: data of the training; None if it is unknown.
        sampling: settings of the samples.
        extractors: networks of features.
        batch_size: images per batch.
        real: measurements of the real images.
        folder: folder for pictures.
    """
    with sampling.compilation(model) as compilation:
        draw = partial(samples.sample, model, reference, sampling, compilation)
        sampled = measure(
            lambda indices: image_set(*draw(indices), extractors, sampling.matchers),
            sampling.count,
            batch_size,
        )
        results = sample_results(extractors, real, sampled)
        if training is None:
            unknown = Skipped("near-copies", "the training images of the model are unknown")
            return chain(results, [unknown]), {}
        known = ReferenceSet(training, "training", sampling.training)
        others = ReferenceSet(training, "validation", sampling.training)
        seen = measure_set(known, extractors, batch_size)
        held_out = real if same_images(others, reference) else measure_set(others, extractors, batch_size)
        spaces = list(samples.spaces(sampled, seen, held_out, extractors))
        results = chain(results, training_results(model, spaces, sampled, seen, held_out))
        first = Process.from_environment().rank == 0
        return results, list_nearest(spaces, known, draw, folder) if first else {}


def evaluate_folders(
    real: ReferenceSet, generated: ReferenceSet, networks: Networks, batch_size: int
) -> Card | None:
    """Compare two folders of images; return the card in the first process and None in the others."""
    sets, extractors = (real, generated), networks.extractors

    def measure_pairs(indices: Sequence[int]) -> tuple[Any, ...]:
        images, others = (read_images(sets, which, indices) for which in range(2))
        found = reconstructions.similarity(images, others, networks)
        return extract(images, extractors), extract(others, extractors), found

    def measure_one(which: int, indices: Sequence[int]) -> dict[str, Features]:
        return extract(read_images(sets, which, indices), extractors)

    if are_pairs(*sets):
        features, others, found = measure(measure_pairs, len(real), batch_size)
        results: list[Results] = [networks.missing, reconstructions.similarity_numbers(found)]
    else:
        features, others = (
            measure(partial(measure_one, which), len(each), batch_size) for which, each in enumerate(sets)
        )
        results = [[each for each in networks.missing if not each.name.startswith("LPIPS")]]
    for extractor in extractors:
        pair = features[extractor.name], others[extractor.name]
        results += [distances(extractor, *pair), sample_quality(extractor, *pair)]
    if Process.from_environment().rank != 0:
        return None
    sampled = {"sampled_by": sample_metadata(generated.data.catalog)}
    metadata = {"real": real.metadata, "generated": {"what": "files", **generated.metadata, **sampled}}
    return Card.of("images", {**metadata, **networks.protocol}, chain(*results), {})


def check_data(run: str, model: Model, data: ImageData, training: ImageData | None) -> None:
    """Raise a UserError for images that the model cannot read, or that would wrongly count as held out."""
    names = ("channels", "window", "bits", "background", *(("height", "width") if model.prior else ()))
    for name in names:
        got, expected = (getattr(part.preprocessing, name) for part in (data, model))
        if got != expected:
            raise UserError(
                f"the data's {name} is {got}, but the model expects {expected}; leave out --data.{name}"
            )
    if isinstance(model.condition, ClassLabels) and len(data.class_names) > len(model.classes):
        raise UserError(
            f"the data has {len(data.class_names)} classes, but the prior knows {len(model.classes)}; choose "
            "other data with --data.source, or ignore the classes with --data.labels none"
        )
    if training is not None and is_training_source(training, data) and data.validation > training.validation:
        raise UserError(
            f"validation {data.validation} would count training images of {run} as held out; use at most "
            f"{training.validation}, or leave out --data.validation"
        )


def is_training_source(training: ImageData | None, data: ImageData) -> bool:
    """Return True if a run was trained on the same source as some data."""
    return training is not None and training.source == data.source


def same_images(one: ReferenceSet, other: ReferenceSet) -> bool:
    """Return True if two sets hold the same images with the same labels."""
    keys = [
        (each.data.source, each.data.preprocessing, each.data.class_names, list(each.indices))
        for each in (one, other)
    ]
    return keys[0] == keys[1]


def training_nats(
    model: Model, reference: ReferenceSet, training: ImageData | None, batch_size: int
) -> Float[Tensor, " n"] | None:
    """Nats of training images, to compare with held-out ones; None if that is not possible."""
    held_out = reference.side == "validation" and is_training_source(training, reference.data)
    if model.prior is None or training is None or not held_out:
        return None
    known = ReferenceSet(training, "training", len(reference))
    nats = partial(reconstructions.image_nats, model)
    return measure(lambda indices: nats(known.batch(indices)), len(known), batch_size)


def reconstruction_results(
    model: Model,
    extractors: Sequence[Extractor],
    real: ImageSet,
    reconstructed: Reconstructions,
    nats: Float[Tensor, " n"] | None,
) -> Results:
    """Yield results of a compressor, and the likelihood under its prior if there is one."""
    yield from reconstructions.similarity_numbers(reconstructed.similarity)
    for extractor in extractors:
        name = extractor.name
        yield from distances(extractor, real.features[name], reconstructed.features[name], "r")
        for rate, features in reconstructed.perturbed.items():
            yield from distances(extractor, real.features[name], features[name], "p", f" ({rate:.0%})")
    codes, size = reconstructed.codes, model.preprocessing
    if codes is not None:
        layout = model.compressor.code_layout(size.height, size.width)
        yield from reconstructions.codebook_numbers(codes, layout)
        if isinstance(model.prior, CodePrior) and reconstructed.nats is not None:
            yield from reconstructions.likelihood_numbers(model.prior, reconstructed.nats, codes, nats)
    if isinstance(model.prior, LatentPrior) and reconstructed.nats is not None:
        yield from reconstructions.density_numbers(model.prior, reconstructed.nats, nats)
    if reconstructed.rate is not None:
        yield from reconstructions.rate_numbers(reconstructed.rate, size.height * size.width)


def sample_results(extractors: Sequence[Extractor], real: ImageSet, sampled: ImageSet) -> Results:
    """Yield distances of samples from real images, and agreement with their condition."""
    for extractor in extractors:
        pair = real.features[extractor.name], sampled.features[extractor.name]
        yield from distances(extractor, *pair, "g")
        yield from sample_quality(extractor, *pair)
    yield from samples.agreement_numbers(sampled, real)


def training_results(
    model: Model, spaces: Sequence[Space], sampled: ImageSet, training: ImageSet, held_out: ImageSet
) -> Results:
    """Yield comparisons with training images: classes of the nearest ones, and near-copies."""
    if model.classes and "class" in model.condition.modality.describe(ConditionInputs.nothing(1))[0]:
        for space in spaces:
            yield samples.class_agreement(space, sampled, training, held_out)
    for space in spaces:
        yield samples.near_copy_number(space)


def list_extremes(
    model: Model, reference: ReferenceSet, reconstructed: Reconstructions, folder: Path
) -> Listing:
    """List the worst and best reconstructions by PSNR, and save them beside the images."""
    found = reconstructed.similarity
    columns = {"psnr": found.psnr, **found.lpips}
    order = torch.argsort(found.psnr, stable=True).tolist()
    listed = {}
    for name, indices in (("worst", order[:LISTED]), ("best", order[::-1][:LISTED])):
        images = reference.batch(indices).images
        title = f"{name}: image and reconstruction"
        save_pairs(folder / f"{name}.png", images, model.reconstruct(images).cpu(), title)
        listed[name] = [
            {"key": reference.key(index)} | {key: float(values[index]) for key, values in columns.items()}
            for index in indices
        ]
    return listed


def list_nearest(spaces: Sequence[Space], training: ReferenceSet, draw: Draw, folder: Path) -> Listing:
    """List the samples nearest to a training image, and save them beside that image."""
    listed = {}
    for space in spaces:
        name, found = f"nearest{space.suffix}", samples.closest(space)
        images, _ = draw([index for index, *_ in found])
        nearest = training.batch([index for _, index, _ in found]).images
        save_pairs(folder / f"{name}.png", images, nearest, "sample and nearest training image")
        listed[name] = [
            {"sample": index, "training": training.key(other), "distance": distance}
            for index, other, distance in found
        ]
    return listed


def save_pairs(
    path: Path, left: Float[Tensor, "b c H W"], right: Float[Tensor, "b c H W"], title: str
) -> None:
    """Save pairs of images as one picture."""
    pairs = torch.stack(list(chain(*zip(left, right, strict=True))))
    write(sheet(pairs, 8, title=title), path)
