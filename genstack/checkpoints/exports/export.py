"""The contract of exports: a model of ours becomes files that other programs read."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from genstack.model import Model


class Export(ABC):
    """A kind of files to hand a model on in. Subclasses lie in this folder."""

    name: ClassVar[str]  # what a user calls it
    what: ClassVar[str]  # one line: which files, and who reads them
    half: ClassVar[bool] = False  # True if weights can be stored in half precision

    @abstractmethod
    def write(self, model: Model, folder: Path, batch: int) -> None:
        """Write the files into an empty folder.

        Args:
            model: on the CPU, in eval mode.
            folder: to write into.
            batch: number of images that fixed programs take at a time; others take any.

        Raises:
            UserError: these files cannot say what this model computes.
        """

    @abstractmethod
    def use(self, model: Model, place: str, batch: int) -> str:
        """Lines of Python that load the files from `place` and use them, for the model card."""
