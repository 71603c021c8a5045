"""The way from one picture to another: jobs of `genstack interpolate`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from genstack.cli.verbs.interpolate import interpolate_files, save_interpolation
from genstack.errors import UserError
from genstack.web.job import Job, Report

MOST = 32  # images of one request


@dataclass(frozen=True)
class Interpolation(Job):
    """Images between the latents of two pictures, which are the `places`."""

    verb: ClassVar[str] = "interpolate"

    @property
    def out(self) -> Path:
        return self.folder / "pictures"

    @property
    def count(self) -> int:
        """Number of images."""
        return self.settings["count"]

    def make(self, report: Report) -> Iterator[list[Path]]:
        if self.count > MOST:
            raise UserError(f"count must be at most {MOST} on this page, got {self.count}")
        model, (first, last) = self.run.model, self.places
        images = interpolate_files(model, first, last, self.count)
        files = save_interpolation(model, images, self.out)
        report(1.0)
        yield files

    @property
    def lines(self) -> list[str]:
        first, last = map(self.path, self.places)
        return [
            "from pathlib import Path",
            "",
            "import genstack",
            "from genstack.data.images import save_all",
            "from genstack.data.transforms import load",
            "",
            self.load,
            f"first, last = (load(file, model.preprocessing) for file in ({first}, {last}))",
            f"images = model.interpolate(first, last, {self.count})",
            f"save_all(images, {self.path(self.out)}, model.preprocessing)",
        ]
