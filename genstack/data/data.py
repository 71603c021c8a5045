"""The contract of what a training reads: batches without end, those laid aside, and what they offer."""

from abc import ABC, abstractmethod
from typing import Literal

from torch.utils.data import DataLoader

from genstack.data.batch import Batch, CodeBatch
from genstack.data.images import Preprocessing
from genstack.inputs import DataInfo


class Data(ABC):
    """Images, or codes of images; each is on one side of the split between training and validation.

    `source` is where they come from, `batch_size` the number in one optimizer step of all processes.
    """

    source: str
    batch_size: int

    @property
    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """How files become the images."""

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their labels; () where there are none."""

    @property
    @abstractmethod
    def info(self) -> DataInfo:
        """What there is for a condition to read."""

    @abstractmethod
    def training_loader(
        self, start: int = 0, batch_size: int | None = None, rank: int = 0, processes: int = 1
    ) -> DataLoader:
        """Endless shuffled batches for one process, after `start` images consumed by all."""

    @abstractmethod
    def validation_loader(
        self, batch_size: int | None = None, rank: int = 0, processes: int = 1
    ) -> DataLoader:
        """Everything laid aside once, in order; the last batch may be small."""

    @abstractmethod
    def examples(
        self, side: Literal["training", "validation"], count: int | None = None
    ) -> Batch | CodeBatch:
        """The first `count` of a side of the split, or all that there are."""

    @abstractmethod
    def summary(self) -> str:
        """What there is, in a line."""

    def notices(self) -> list[str]:
        """What a user should know of the data before training, a line each."""
        return []

    @abstractmethod
    def report(self) -> str:
        """What there is, in a few lines; counts the images of every class."""
