"""A series of images in a folder: PNG files that carry how they were drawn, a list of them, and a sheet."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from genstack.atomic import begun, replacing, shared
from genstack.data.framing import load
from genstack.data.images import save
from genstack.data.sheet import sheet
from genstack.errors import UserError
from genstack.sampling.series import Series, filled

CHUNK = "genstack"  # the text chunk of a PNG that says how it was drawn
LIST = "samples.jsonl"
SHOWN = 64  # images on the sheet, at most


@dataclass(frozen=True)
class Gallery:
    """A folder of images; what is there already is kept, so that several processes can share the work.

    Args:
        series: the images.
        folder: where they go: `00000.png` and on, and `samples.jsonl`, a line for each.
    """

    series: Series
    folder: Path

    def path(self, index: int) -> Path:
        """File of an image."""
        return self.folder / f"{index:05d}.png"

    def settings(self, index: int) -> str:
        """How an image is drawn, as JSON: what its PNG carries, and its line in the list."""
        return json.dumps({"file": self.path(index).name} | self.series.settings(index), ensure_ascii=False)

    @property
    def missing(self) -> list[int]:
        """Numbers of the images that are not there yet.

        Raises:
            UserError: another image is in the place of one.
        """
        return [index for index in range(len(self.series)) if not self.holds(index)]

    def holds(self, index: int) -> bool:
        """Whether an image is there.

        Raises:
            UserError: there is another image in its place.
        """
        if not self.path(index).exists():
            return False
        with Image.open(self.path(index)) as picture:
            found = picture.info.get(CHUNK)
        if found != self.settings(index):
            raise UserError(
                f"{self.path(index)} is another image, or drawn with other settings; choose another --out"
            )
        return True

    def draw(
        self,
        indices: Sequence[int],
        batch_size: int = 32,
        done: Callable[[int], None] = lambda images: None,
        even: bool = False,
    ) -> None:
        """Draw images, and write the list of all; what killed processes had begun to write is removed.

        Args:
            indices: their numbers, such as all that are `missing`.
            batch_size: images drawn at a time; changes speed and memory, not images.
            done: hears of every few images.
            even: fill the last batch up with copies, since compiled networks are made for one size of batch.
        """
        with shared(self.folder, begun(self.folder)):
            for first in range(0, len(indices), batch_size):
                batch = indices[first : first + batch_size]
                images = self.series.images(filled(batch, batch_size if even else 0))[: len(batch)]
                for index, image in zip(batch, images, strict=True):
                    text = {CHUNK: self.settings(index)}
                    save(image.cpu(), self.path(index), self.series.preprocessing, text)
                done(len(batch))
            lines = "".join(self.settings(index) + "\n" for index in range(len(self.series)))
            with replacing(self.folder / LIST) as path:
                path.write_text(lines, encoding="utf-8")

    def sheet(self, columns: int) -> Image.Image:
        """The first images on one sheet, each over what steers it."""
        shown = range(min(SHOWN, len(self.series)))
        pictures = torch.stack([load(self.path(index), self.series.preprocessing) for index in shown])
        names = [", ".join(self.series.told[index].values()) for index in shown]
        return sheet(pictures, columns, labels=names if any(names) else None)
