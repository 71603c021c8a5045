"""The contract of training data: endless training batches, validation batches, inputs of conditions."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64
from torch.utils.data import DataLoader

from genstack.data.batch import Batch, EncodedBatch
from genstack.data.classes import balance_classes, find_untrained, share_of_each
from genstack.data.images import Preprocessing
from genstack.data.split import Indices, Split, hash_keys, split
from genstack.errors import UserError
from genstack.inputs import DataInfo

SHOWN = 10  # classes in a line


@runtime_checkable  # for the checks of jaxtyping in tests
class Catalog(Protocol):
    """Keys and labels of images by number: a source, or an archive of codes."""

    def __len__(self) -> int: ...

    def key(self, number: int) -> str:
        """Permanent name of an image."""

    def key_hashes(self, count: int) -> Iterator[Float64[np.ndarray, " n"]]:
        """Hashes in [0, 1) of the first `count` keys, in blocks."""

    def labels_of(self, numbers: Sequence[int]) -> Int64[np.ndarray, " n"]:
        """Classes of some images."""


class Data(ABC):
    """Images or their codes, split into training and validation; for the attributes, see `ImageData`."""

    source: str
    batch_size: int
    limit: int | None
    validation: float
    balance: float
    #: True for codes or latents of images, False for images.
    encoded: ClassVar[bool] = False

    @property
    @abstractmethod
    def catalog(self) -> Catalog:
        """Keys and labels of all images."""

    @property
    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """Preprocessing from files to images."""

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their labels; () without classes."""

    @property
    @abstractmethod
    def info(self) -> DataInfo:
        """Metadata that a condition can read."""

    @abstractmethod
    def training_loader(
        self, start: int = 0, batch_size: int | None = None, rank: int = 0, processes: int = 1
    ) -> DataLoader:
        """Endless shuffled batches for one process, after `start` images consumed by all.

        `batch_size` counts images of one process; None for the config's.
        """

    @abstractmethod
    def validation_loader(
        self, batch_size: int | None = None, rank: int = 0, processes: int = 1
    ) -> DataLoader:
        """Every validation image once, in order; the last batch may be smaller."""

    @abstractmethod
    def examples(
        self, side: Literal["training", "validation"], count: int | None = None
    ) -> Batch | EncodedBatch:
        """The first `count` images of a side of the split; None for all."""

    @abstractmethod
    def summary(self) -> str:
        """A one-line summary."""

    @cached_property
    def numbers(self) -> Sequence[int]:
        """Numbers of the images within `limit`."""
        whole = len(self.catalog)
        if self.limit is None or self.limit >= whole:
            return range(whole)
        if not self.class_names:
            return range(self.limit)
        return Indices(share_of_each(self.catalog.labels_of(range(whole)), self.limit))

    @cached_property
    def split(self) -> Split:
        """Numbers of the training and of the validation images."""
        if isinstance(self.numbers, range):
            return split(self.catalog.key_hashes(len(self.numbers)), self.validation)
        return split(hash_keys(map(self.catalog.key, self.numbers)), self.validation).of(self.numbers)

    @cached_property
    def training_numbers(self) -> Sequence[int]:
        """Numbers of the training images; with `balance`, images of rare classes are repeated."""
        training = self.split.training
        if not self.balance:
            return training
        if not self.class_names:
            raise UserError(f"data.balance {self.balance} needs classes, but {self.source} has none")
        return Indices(np.array(training)[balance_classes(self.catalog.labels_of(training), self.balance)])

    @cached_property
    def untrained(self) -> tuple[int, ...]:
        """Labels of the classes without a training image."""
        classes = len(self.class_names)
        return find_untrained(self.catalog.labels_of, self.split.training, classes) if classes else ()

    def notices(self) -> list[str]:
        """Warnings about the data before training, one line each."""
        if not self.untrained:
            return []
        names = [self.class_names[label] for label in self.untrained[:SHOWN]]
        names += ["..."] * (len(self.untrained) > SHOWN)
        count = f"{len(self.untrained)} of {len(self.class_names)} classes"
        return [f"{count} have no training image, sampled only by name: {', '.join(names)}"]

    def report(self) -> str:
        """Summary, warnings and the number of images of every class."""
        lines = [self.summary(), *self.notices()]
        if self.class_names:
            counts = Counter(self.catalog.labels_of(self.numbers).tolist())
            lines += [f"  #{label} {name}: {counts[label]}" for label, name in enumerate(self.class_names)]
        return "\n".join(lines)
