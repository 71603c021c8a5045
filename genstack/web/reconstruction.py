"""A picture and its reconstruction: jobs of `genstack reconstruct`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from genstack.cli.verbs.reconstruct import make_sheet, reconstruct_images
from genstack.data import ImageData
from genstack.data.images import CHUNK, save, write
from genstack.losses.fidelity import psnr
from genstack.web.job import Job, Report

PICTURE = "picture.png"


@dataclass(frozen=True)
class Reconstruction(Job):
    """The reconstruction of a picture, which is alone in the folder of the setting `source`."""

    verb: ClassVar[str] = "reconstruct"

    @property
    def out(self) -> Path:
        return self.folder / "reconstructions.png"

    @property
    def picture(self) -> Path:
        """File of the picture."""
        return self.settings["source"] / PICTURE

    @cached_property
    def images(self) -> tuple[Float[Tensor, "1 c H W"], Float[Tensor, "1 c H W"]]:
        """The picture and its reconstruction."""
        model = self.run.model
        return reconstruct_images(
            model, ImageData.for_model(model.preprocessing, str(self.settings["source"])), "all", 1
        )

    @property
    def note(self) -> str:
        return f"PSNR {psnr(*self.images).item():.2f} dB"

    def make(self, report: Report) -> Iterator[list[Path]]:
        """Write the sheet of the command, and the reconstruction as a file."""
        model, file = self.run.model, self.folder / "reconstruction.png"
        write(make_sheet(*self.images), self.out)
        save(self.images[1][0], file, model.preprocessing, {CHUNK: json.dumps({"model": model.fingerprint})})
        report(1.0)
        yield [self.picture, file]

    @property
    def lines(self) -> list[str]:
        return [
            "from pathlib import Path",
            "",
            "import genstack",
            "import torch",
            "from genstack.data.images import write",
            "from genstack.data.sheet import sheet",
            "from genstack.data.transforms import load",
            "",
            self.load,
            f"images = load({self.path(self.picture)}, model.preprocessing)[None]",
            "pairs = torch.cat([images, model.reconstruct(images).cpu()])",
            f"write(sheet(pairs, columns=2), {self.path(self.out)})",
        ]
