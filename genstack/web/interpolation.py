"""The way from one picture to another: jobs of `genstack interpolate`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from genstack.cli.verbs.interpolate import COLUMNS, interpolate_files, make_sheet
from genstack.data.images import CHUNK, save, write
from genstack.errors import UserError
from genstack.web.job import Job, Report

MOST = 32  # images of one request


@dataclass(frozen=True)
class Interpolation(Job):
    """Images between the latents of two pictures, which are the `places`."""

    verb: ClassVar[str] = "interpolate"

    @property
    def out(self) -> Path:
        return self.folder / "interpolation.png"

    @property
    def count(self) -> int:
        """Number of images."""
        return self.settings["count"]

    def make(self, report: Report) -> Iterator[list[Path]]:
        """Write the sheet of the command, and each image as a file."""
        if self.count > MOST:
            raise UserError(f"count must be at most {MOST} on this page, got {self.count}")
        model, (first, last) = self.run.model, self.places
        images = interpolate_files(model, first, last, self.count)
        write(make_sheet(images), self.out)
        files = [self.folder / f"{index:05d}.png" for index in range(self.count)]
        for index, (image, file) in enumerate(zip(images, files, strict=True)):
            settings = {"index": index, "count": self.count, "model": model.fingerprint}
            save(image, file, model.preprocessing, {CHUNK: json.dumps(settings)})
            report((index + 1) / self.count)
        yield files

    @property
    def lines(self) -> list[str]:
        first, last = map(self.path, self.places)
        return [
            "from pathlib import Path",
            "",
            "import genstack",
            "from genstack.data.images import write",
            "from genstack.data.sheet import sheet",
            "from genstack.data.transforms import load",
            "",
            self.load,
            f"first, last = (load(file, model.preprocessing) for file in ({first}, {last}))",
            f"images = model.interpolate(first, last, {self.count})",
            f"write(sheet(images, columns={min(self.count, COLUMNS)}), {self.path(self.out)})",
        ]
