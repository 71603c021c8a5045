"""The evaluation of ADM (Dhariwal & Nichol 2021, arXiv:2105.05233), of images in .npz files or folders.

Papers compare these numbers: 50,000 samples against a reference file, by TensorFlow's Inception of 2015.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from genstack.data import ImageData
from genstack.data.images import from_uint8
from genstack.data.npz import map_arrays, write_arrays
from genstack.dist import Process
from genstack.errors import UserError
from genstack.evaluation.card import Card, Number, Skipped
from genstack.evaluation.extractor import Extractor, Features
from genstack.evaluation.folders import common_shape, open_folder, read_images
from genstack.evaluation.measure import measure
from genstack.evaluation.metrics.coverage import NEIGHBOURS, coverage
from genstack.evaluation.metrics.frechet import covariance_root, moments_distance
from genstack.evaluation.reference import ReferenceSet

NPZ = ".npz"
IMAGES = "arr_0"
STATISTICS = ("mu", "sigma", "mu_s", "sigma_s")
SPLIT = 5000  # images of one Inception score; ADM's is the mean over such parts


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution fitted to features.

    Args:
        mean: of the features.
        covariance: of the features, divided by n - 1.
    """

    mean: Float[Tensor, " d"]
    covariance: Float[Tensor, "d d"]

    @classmethod
    def fit(cls, features: Float[Tensor, "n d"]) -> "Gaussian":
        """Fit a distribution to features."""
        centred = (features.double() - (mean := features.double().mean(0))) / max(1, len(features) - 1) ** 0.5
        return cls(mean, centred.T @ centred)

    def distance(self, other: "Gaussian") -> float:
        """Fréchet distance."""
        one, two = ((each.mean, covariance_root(each.covariance)) for each in (self, other))
        return moments_distance(one, two)


class Images(ABC):
    """Images, or statistics of their features, or both.

    Args:
        path: of the file or folder.
    """

    path: Path

    @classmethod
    def open(cls, path: Path) -> "Images":
        """Open an .npz file or a folder of images."""
        return NpzFile(path) if path.suffix == NPZ else Folder(path)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def images(self, indices: Sequence[int]) -> Float[Tensor, "b c H W"]:
        """Images in [-1, 1]; indices are consecutive."""

    @abstractmethod
    def statistics(self, names: tuple[str, str]) -> Gaussian | None:
        """Stored statistics, or None."""


class Folder(Images):
    """Images of one size in a folder, in the order of their names."""

    def __init__(self, path: Path):
        self.path = path
        _, *size = common_shape([open_folder(str(path))])
        data = ImageData(source=str(path), resolution=(size[0], size[1]), channels=3, labels="none")
        self.reference = ReferenceSet(data, "all")

    def __len__(self) -> int:
        return len(self.reference)

    def images(self, indices: Sequence[int]) -> Float[Tensor, "b c H W"]:
        return read_images([self.reference], 0, indices)

    def statistics(self, names: tuple[str, str]) -> Gaussian | None:
        return None


class NpzFile(Images):
    """Images and statistics in an .npz file, mapped.

    Args:
        path: of the file, with `arr_0` (uint8, n x height x width x 3), or `mu`, `sigma`, `mu_s` and
            `sigma_s`, or both.
    """

    def __init__(self, path: Path):
        self.path = path
        self.arrays = map_arrays(path, (IMAGES, *STATISTICS))
        if IMAGES not in self.arrays and "mu" not in self.arrays:
            raise UserError(f"{path} has neither images ({IMAGES}) nor statistics ({', '.join(STATISTICS)})")
        if IMAGES in self.arrays:
            images = self.arrays[IMAGES]
            if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not len(images):
                raise UserError(
                    f"{path}: {IMAGES} must be uint8 of n x height x width x 3, got {images.dtype} of "
                    f"{' x '.join(map(str, images.shape))}"
                )

    def __len__(self) -> int:
        return len(self.arrays[IMAGES]) if IMAGES in self.arrays else 0

    def images(self, indices: Sequence[int]) -> Float[Tensor, "b c H W"]:
        return from_uint8(torch.from_numpy(self.arrays[IMAGES][indices[0] : indices[-1] + 1].copy()))

    def statistics(self, names: tuple[str, str]) -> Gaussian | None:
        if any(name not in self.arrays for name in names):
            return None
        mean, covariance = (torch.from_numpy(np.array(self.arrays[name], np.float64)) for name in names)
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or not covariance.isfinite().all():
            raise UserError(f"{self.path}: {names[0]} and {names[1]} are no mean and covariance")
        return Gaussian(mean, covariance)


@dataclass(frozen=True)
class Side:
    """A file, and the features of its images.

    Args:
        file: the file.
        features: of its images; None without any.
    """

    file: Images
    features: Features | None

    @cached_property
    def pooled_statistics(self) -> Gaussian:
        """Statistics of the features of FID, as stored or else computed from the images."""
        return self._gaussian(("mu", "sigma"), None if self.features is None else self.features.vectors)

    @cached_property
    def spatial_statistics(self) -> Gaussian:
        """Statistics of the features of sFID."""
        return self._gaussian(("mu_s", "sigma_s"), None if self.features is None else self.features.spatial)

    def _gaussian(self, names: tuple[str, str], features: Tensor | None) -> Gaussian:
        if (stored := self.file.statistics(names)) is not None:
            return stored
        if features is None:
            raise UserError(f"{self.file.path} has neither {names[0]} and {names[1]} nor {IMAGES}")
        return Gaussian.fit(features)


def compare(
    real: Images, generated: Images, extractor: Extractor, batch_size: int, statistics: str = ""
) -> Card | None:
    """Compare two files or folders; return the card in the first process and None in the others.

    Args:
        real: the reference.
        generated: the samples.
        extractor: Inception with spatial features.
        batch_size: images per batch.
        statistics: file for the statistics of the reference; empty for none.
    """
    if not len(generated):
        raise UserError(f"{generated.path} has no images ({IMAGES}); name the reference first")
    sides = [Side(file, features(file, extractor, batch_size)) for file in (real, generated)]
    if Process.from_environment().rank != 0:
        return None
    if statistics:
        write_statistics(Path(statistics), sides[0])
    protocol = {
        "evaluation": "ADM (arXiv:2105.05233)",
        "real": {
            "file": str(real.path),
            "count": len(real),
            "statistics": real.statistics(STATISTICS[:2]) is not None,
        },
        "generated": {"file": str(generated.path), "count": len(generated)},
        "extractors": {extractor.frechet: extractor.metadata},
    }
    return Card.of("images", protocol, numbers(*sides), {})


def features(file: Images, extractor: Extractor, batch_size: int) -> Features | None:
    """Features of the images of a file, shared between processes."""
    if not len(file):
        return None
    return measure(lambda indices: extractor(file.images(indices)), len(file), batch_size)


def numbers(real: Side, generated: Side) -> Iterator[Number | Skipped]:
    """The numbers of ADM's evaluation."""
    found = generated.features
    assert found is not None and found.probabilities is not None, "samples have images, Inception has classes"
    score = split_score(found.probabilities)
    yield Number("IS", score, f"Inception score, mean over parts of {SPLIT:,} images", "higher")
    distance = generated.pooled_statistics.distance(real.pooled_statistics)
    yield Number("FID", distance, "Fréchet distance of 2,048 features", "lower")
    distance = generated.spatial_statistics.distance(real.spatial_statistics)
    yield Number("sFID", distance, "Fréchet distance of spatial features", "lower")
    if real.features is None:
        for name in ("precision", "recall"):
            yield Skipped(name, f"{real.file.path} has statistics and no images")
        return
    shares = coverage(real.features.vectors, found.vectors, limit=None)
    of = f"{NEIGHBOURS}-nearest-neighbour radius of a"
    yield Number.mean("precision", shares.precision, f"share of samples within the {of} real image", "higher")
    yield Number.mean("recall", shares.recall, f"share of real images within the {of} sample", "higher")


def split_score(probabilities: Float[Tensor, "n classes"], size: int = SPLIT) -> float:
    """Mean over parts of exp of the mean KL divergence of p(class | image) from p(class)."""
    scores = []
    for part in probabilities.double().split(size):
        entropy = torch.special.entr(part).sum(1).mean()
        scores.append((torch.special.entr(part.mean(0)).sum() - entropy).exp())
    return float(torch.stack(scores).mean())


def write_statistics(path: Path, side: Side) -> None:
    """Write the statistics of a reference, as ADM's files have them."""
    found: dict[str, Any] = {}
    for (mean, covariance), gaussian in zip(
        (STATISTICS[:2], STATISTICS[2:]), (side.pooled_statistics, side.spatial_statistics), strict=True
    ):
        found |= {mean: gaussian.mean.numpy(), covariance: gaussian.covariance.numpy()}
    write_arrays(path, found)
