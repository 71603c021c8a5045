"""Distances between two sets of images in the features of one network."""

from collections.abc import Iterator

from genstack.evaluation.card import Number, Skipped
from genstack.evaluation.extractor import Extractor, Features
from genstack.evaluation.metrics.coverage import DENSITY_NEIGHBOURS, NEIGHBOURS, coverage
from genstack.evaluation.metrics.frechet import MIN_IMAGES, frechet_distance
from genstack.evaluation.metrics.inception_score import inception_score
from genstack.evaluation.metrics.intervals import jackknife_interval
from genstack.evaluation.metrics.kid import kid
from genstack.evaluation.metrics.mmd import mmd

FEWEST = 16  # images of either set, so that each half of the real ones has enough neighbours
COVERAGE = {
    "precision": f"share of generated images within the {NEIGHBOURS}-nearest-neighbour radius of a real one",
    "recall": f"share of real images within the {NEIGHBOURS}-nearest-neighbour radius of a generated one",
    "density": f"mean number of real images whose {DENSITY_NEIGHBOURS}-nearest-neighbour radius holds a "
    f"generated image, divided by {DENSITY_NEIGHBOURS}",
    "coverage": f"share of real images whose {DENSITY_NEIGHBOURS}-nearest-neighbour radius holds a generated "
    "image",
}


def distances(
    extractor: Extractor, real: Features, generated: Features, prefix: str = "", suffix: str = ""
) -> Iterator[Number | Skipped]:
    """Kernel distances and Fréchet distance.

    Args:
        extractor: the network.
        real: features of the real images.
        generated: features of the generated images.
        prefix: prefix of metric names: r (reconstructions), p (images from perturbed codes), g (samples).
        suffix: end of metric names.
    """
    kid_name, frechet_name = (prefix + name + suffix for name in (extractor.kid, extractor.frechet))
    one, other = real.vectors.double(), generated.vectors.double()
    count = min(len(one), len(other))
    if count < FEWEST:
        yield Skipped(kid_name, f"needs at least {FEWEST} images of either set, got {count}")
        return
    halves = one[::2], one[1::2]
    value, interval = kid(one, other)
    meaning = "unbiased squared kernel distance of features; real: between two halves of the real images"
    yield Number(kid_name, value, meaning, "lower", interval, kid(*halves)[0])
    if extractor.mmd:
        value, interval = mmd(one, other)
        meaning = "1,000 times the squared distance with a Gaussian kernel; real: between two halves"
        yield Number(prefix + extractor.mmd + suffix, value, meaning, "lower", interval, mmd(*halves)[0])
    if count < MIN_IMAGES:
        yield Skipped(
            frechet_name,
            f"needs at least {MIN_IMAGES:,} images of either set, got {count:,}; {kid_name} is unbiased for "
            "small sets, too",
        )
        return
    yield Number(
        frechet_name,
        frechet_distance(one, other),
        "Fréchet distance of features; real: between two halves of the real images, biased upwards because "
        "they are smaller",
        "lower",
        jackknife_interval(frechet_distance, (one, other)),
        frechet_distance(*halves),
    )


def sample_quality(extractor: Extractor, real: Features, generated: Features) -> Iterator[Number]:
    """Precision, recall, density, coverage and the classifier's score; nothing for small sets."""
    one, other = real.vectors.double(), generated.vectors.double()
    if min(len(one), len(other)) < FEWEST:
        return
    of_samples, of_halves = coverage(one, other), coverage(one[::2], one[1::2])
    for name, meaning in COVERAGE.items():
        yield Number.mean(
            f"{name}-{extractor.name}",
            getattr(of_samples, name),
            f"{meaning}; real: one half of the real images against the other",
            "higher",
            real=float(getattr(of_halves, name).mean()),
        )
    if generated.probabilities is None or real.probabilities is None:
        return
    value, interval = inception_score(generated.probabilities)
    yield Number(
        extractor.score,
        value,
        "exp of the mean KL divergence of an image's class probabilities from the mean over images; real: of "
        "the real images",
        "higher",
        interval,
        inception_score(real.probabilities)[0],
    )
