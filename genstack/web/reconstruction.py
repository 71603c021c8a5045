"""A picture and its reconstruction: jobs of `genstack reconstruct`."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from genstack.cli.verbs.reconstruct import FOLDERS, reconstruct_images, save_pairs
from genstack.data import ImageData
from genstack.losses.fidelity import psnr
from genstack.web.job import Job, Report, literal

PICTURE = "picture.png"


@dataclass(frozen=True)
class Reconstruction(Job):
    """The reconstruction of a picture, which is alone in the folder of the setting `source`."""

    verb: ClassVar[str] = "reconstruct"

    @property
    def out(self) -> Path:
        return self.folder / "pictures"

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
        files = save_pairs(self.run.model, *self.images, self.out)
        report(1.0)
        yield files

    @property
    def lines(self) -> list[str]:
        return [
            "from pathlib import Path",
            "",
            "import genstack",
            "from genstack.data.images import save_all",
            "from genstack.data.transforms import load",
            "",
            self.load,
            f"images = load({self.path(self.picture)}, model.preprocessing)[None]",
            "pairs = images, model.reconstruct(images).cpu()",
            f"for name, part in zip({literal(FOLDERS)}, pairs):",
            f"    save_all(part, {self.path(self.out)} / name, model.preprocessing)",
        ]
