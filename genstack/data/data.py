"""The contract of training data: endless training batches, validation batches, inputs of conditions."""

from abc import ABC, abstractmethod
from typing import Literal

from torch.utils.data import DataLoader

from genstack.data.batch import Batch, CodeBatch
from genstack.data.images import Preprocessing
from genstack.inputs import DataInfo


class Data(ABC):
    """Images or their codes, split into training and validation.

    `source` names the data; `batch_size` is the number of images of one optimizer step over all processes.
    """

    source: str
    batch_size: int

    @property
    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """Preprocessing from files to images."""

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their labels; () where there are none."""

    @property
    @abstractmethod
    def info(self) -> DataInfo:
        """Metadata that a condition can read."""

    @abstractmethod
    def training_loader(
        self, start: int = 0, batch_size: int | None = None, rank: int = 0, processes: int = 1
    ) -> DataLoader:
        """Endless shuffled batches for one process, after `start` images consumed by all."""

    @abstractmethod
    def validation_loader(
        self, batch_size: int | None = None, rank: int = 0, processes: int = 1
    ) -> DataLoader:
        """Every validation image once, in order; the last batch may be smaller."""

    @abstractmethod
    def examples(
        self, side: Literal["training", "validation"], count: int | None = None
    ) -> Batch | CodeBatch:
        """The first `count` of a side of the split, or all that there are."""

    @abstractmethod
    def summary(self) -> str:
        """A one-line summary."""

    def notices(self) -> list[str]:
        """Warnings about the data before training, one line each."""
        return []

    @abstractmethod
    def report(self) -> str:
        """Summary, warnings and the number of images of every class."""
