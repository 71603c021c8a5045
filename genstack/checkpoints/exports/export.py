"""The contract of export formats."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from genstack.model import Model


class Export(ABC):
    """An export format. A new format is a new file in this folder."""

    name: ClassVar[str]  # value of `--to`
    what: ClassVar[str]  # one line: the files and what reads them
    half: ClassVar[bool] = False  # True if weights can be stored in half precision

    @abstractmethod
    def write(self, model: Model, folder: Path, batch: int) -> None:
        """Write the files into an empty folder; raise UserError if the format cannot represent the model.

        Args:
            model: model on the CPU, in eval mode.
            folder: the folder.
            batch: batch size of formats with fixed shapes.
        """

    @abstractmethod
    def use(self, model: Model, place: str, batch: int) -> str:
        """Python code for the model card that loads the files from `place` and uses them."""
