"""A folder of samples: PNG files with their settings, a list, and a contact sheet."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from genstack.atomic import atomic_path, shared_folder, temporary_files
from genstack.data.images import CHUNK, file_name, save
from genstack.data.sheet import sheet
from genstack.data.transforms import load
from genstack.errors import UserError
from genstack.sampling.series import Series

LIST = "samples.jsonl"
SHEET = 64  # most images on the sheet
Draw = Callable[[Sequence[int]], Tensor]


def draw_batch(draw: Draw, indices: Sequence[int], batch_size: int) -> Tensor:
    """Sample the images of a batch from their indices."""
    return draw(indices)


@dataclass(frozen=True)
class Gallery:
    """A folder of samples. Existing files are kept, so several processes can share the work.

    Args:
        series: the samples.
        folder: folder for `00000.png` and so on, and for `samples.jsonl` with a line for each.
    """

    series: Series
    folder: Path

    def path(self, index: int) -> Path:
        """File of a sample."""
        return self.folder / file_name(index)

    def settings(self, index: int) -> str:
        """Settings of a sample as JSON: the text chunk of its PNG, and its line in the list."""
        return json.dumps({"file": self.path(index).name} | self.series.settings(index), ensure_ascii=False)

    @property
    def missing(self) -> list[int]:
        """Indices of samples without a file."""
        return [index for index in range(len(self.series)) if not self.exists(index)]

    def exists(self, index: int) -> bool:
        """Return True if the file of a sample exists."""
        if not self.path(index).exists():
            return False
        with Image.open(self.path(index)) as picture:
            found = picture.info.get(CHUNK)
        if found != self.settings(index):
            raise UserError(f"{self.path(index)} exists with other settings; choose another folder")
        return True

    def pixels(self, index: int) -> UInt8[np.ndarray, "H W three=3"]:
        """Colours of a written sample."""
        with Image.open(self.path(index)) as picture:
            return np.asarray(picture.convert("RGB"))

    def write(
        self,
        indices: Sequence[int],
        batch_size: int = 32,
        progress: Callable[[int], None] = lambda images: None,
        sample: Callable[[Draw, Sequence[int], int], Tensor] = draw_batch,
    ) -> None:
        """Sample images and write files and list; remove partial files of killed processes.

        Args:
            indices: indices of the samples, such as `missing`.
            batch_size: images per batch; affects speed and memory only.
            progress: called with the number of images after each batch.
            sample: runs the given function on a batch of indices; `Compilation.sample` pads and times it.
        """
        with shared_folder(self.folder, temporary_files(self.folder)):
            for first in range(0, len(indices), batch_size):
                batch = indices[first : first + batch_size]
                images = sample(self.series.images, batch, batch_size)
                for index, image in zip(batch, images, strict=True):
                    text = {CHUNK: self.settings(index)}
                    save(image.cpu(), self.path(index), self.series.preprocessing, text)
                progress(len(batch))
            lines = "".join(self.settings(index) + "\n" for index in range(len(self.series)))
            with atomic_path(self.folder / LIST) as path:
                path.write_text(lines, encoding="utf-8")

    def sheet(self, columns: int) -> Image.Image:
        """Contact sheet of the first samples, labelled with their conditions."""
        indices = range(min(SHEET, len(self.series)))
        pictures = torch.stack([load(self.path(index), self.series.preprocessing) for index in indices])
        names = [", ".join(self.series.descriptions[index].values()) for index in indices]
        return sheet(pictures, columns, labels=names if any(names) else None)
