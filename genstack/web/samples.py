"""Samples, new ones or of the masked part of a picture: jobs of `genstack sample`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jsonargparse import Namespace
from PIL import Image

from genstack.cli.commands import SAMPLE
from genstack.cli.parsing.parser import Parser, to_dataclass
from genstack.cli.parsing.prompts import PromptFlags
from genstack.cli.parsing.sampling_options import resolve_options
from genstack.cli.verbs.sample import ComputeFlags, Request, context_note, make_series
from genstack.data.images import Preprocessing, save, write
from genstack.data.transforms import load
from genstack.errors import UserError
from genstack.model import Model
from genstack.sampling import Gallery, Series
from genstack.web.job import Job, Report, arguments, constructor, literal

BATCH_SIZE = 8  # images at a time, which are shown together
MOST = 64  # images of one request, since other users wait


@dataclass(frozen=True)
class Samples(Job):
    """Samples of a prior or a VAE.

    Args:
        canvas: Python that builds the canvas of an edit; "" for new images.
    """

    canvas: str = ""

    verb: ClassVar[str] = "sample"

    @property
    def out(self) -> Path:
        return self.folder / "samples"

    @cached_property
    def flags(self) -> Namespace:
        """The flags as the command reads them."""
        return Parser(SAMPLE).parse(self.arguments())

    @cached_property
    def gallery(self) -> Gallery:
        """The samples and their files."""
        settings = self.flags
        request, compute = to_dataclass(Request, settings), to_dataclass(ComputeFlags, settings)
        if request.count > MOST:
            raise UserError(f"count must be at most {MOST} on this page, got {request.count}")
        model = self.run.model
        series = make_series(settings, model, request, compute)
        return Gallery(replace(series, options=resolve_options(settings, model)), self.out)

    @property
    def series(self) -> Series:
        """The samples."""
        return self.gallery.series

    @property
    def note(self) -> str:
        return context_note(self.series)

    def make(self, report: Report) -> Iterator[list[Path]]:
        gallery, count = self.gallery, len(self.series)
        missing = gallery.missing
        done = [index for index in range(count) if index not in {*missing}]
        for first in range(0, len(missing), BATCH_SIZE):
            indices = missing[first : first + BATCH_SIZE]
            before, share = len(done) / count, len(indices) / count

            def sample(*_: Any, indices=indices, before=before, share=share) -> Any:
                return self.series.images(indices, lambda progress: report(before + share * progress))

            gallery.write(indices, len(indices), sample=sample)
            done = sorted([*done, *indices])
            report(len(done) / count)
            yield [gallery.path(index) for index in done]
        if not missing:
            yield [gallery.path(index) for index in done]

    @property
    def lines(self) -> list[str]:
        series = self.series
        prompts, imports = self._prompts(to_dataclass(PromptFlags, self.flags))
        parts = [f"model, inputs, {constructor(series.options)}, seed={series.seed}"]
        parts += ["canvas=canvas"] * bool(self.canvas)
        parts += [f"size={series.size}, overlap={series.overlap}"] * (series.size is not None)
        return [
            *imports,
            "from pathlib import Path",
            "",
            "import genstack",
            "from genstack.prior import SamplingOptions",
            f"from genstack.sampling import {'Canvas, ' * bool(self.canvas)}Gallery, Series",
            "",
            self.load,
            f"inputs = model.inputs({', '.join([str(len(series)), *prompts])})",
            *[f"canvas = {self.canvas}"] * bool(self.canvas),
            f"series = Series({', '.join(parts)})",
            f"gallery = Gallery(series, {self.path(self.out)})",
            "gallery.write(gallery.missing)",
        ]

    def _prompts(self, flags: PromptFlags) -> tuple[list[str], list[str]]:
        """Arguments of `Model.inputs` in Python, and their imports."""
        count, preprocessing = len(self.series), self.series.preprocessing
        prompts = flags.prompts(preprocessing, count, self.run.model.classes)
        if prompts.images is None:
            return arguments(prompts), []
        size = (preprocessing.height, preprocessing.width)
        read = f"replace(model.preprocessing, height={size[0]}, width={size[1]})"
        files = [Path(flags.condition_images) / name for name in prompts.image_names]
        loaded = ", ".join(f"load({self.path(file)}, {read})" for file in files)
        found = [f"images=torch.stack([{loaded}])", f"image_names={literal(prompts.image_names)}"]
        imports = ["from dataclasses import replace", "", "import torch"]
        return found, [*imports, "from genstack.data.transforms import load"]


def inpainting(job: Samples, picture: Path, mask: Path) -> Samples:
    """Sample a picture anew where a mask is white."""
    canvas = f"Canvas.inpainting(model, {job.path(picture)}, {job.path(mask)})"
    return replace(job, settings={**job.settings, "image": picture, "mask": mask}, canvas=canvas)


def outpainting(job: Samples, picture: Path, margins: tuple[int, int, int, int]) -> Samples:
    """Sample around a picture.

    Args:
        job: the samples.
        picture: the picture, in the size of the model.
        margins: pixels above, below, left and right.
    """
    above, below, left, right = margins
    if min(margins) < 0 or not any(margins):
        raise UserError("nothing to sample: choose how far the picture extends on at least one side")
    preprocessing = job.run.model.preprocessing
    size = (preprocessing.height + above + below, preprocessing.width + left + right)
    place = (share(above, below), share(left, right))
    settings = {**job.settings, "image": picture, "size": f"{size[0]}x{size[1]}"}
    settings["place"] = f"{place[0]},{place[1]}"
    return replace(
        job, settings=settings, canvas=f"Canvas.outpainting(model, {job.path(picture)}, {size}, {place})"
    )


def share(before: int, after: int) -> float:
    """Share of the free space that lies before the picture."""
    return before / (before + after) if before + after else 0.5


def steps_of_margins(model: Model) -> tuple[int, int]:
    """Rows and columns of pixels per code, by which a picture can be extended."""
    rows, columns = model.layout.grids[-1]
    return model.preprocessing.height // rows, model.preprocessing.width // columns


def prepare(model: Model, upload: Path, target: Path) -> None:
    """Write a picture as the model sees it: scaled and cropped as in training."""
    try:
        image = load(upload, model.preprocessing)
    except UserError as error:
        raise UserError(str(error).replace(str(upload), upload.name)) from None
    save(image, target, model.preprocessing)


def write_mask(painted: np.ndarray, preprocessing: Preprocessing, target: Path) -> None:
    """Write a mask in the size of the model; a pixel is white if any part of it was painted.

    Args:
        painted: opacity of the paint, in any size.
        preprocessing: size of the model.
        target: PNG file.
    """
    if not painted.any():
        raise UserError("nothing is painted: paint over the part of the picture to sample anew")
    paint = Image.fromarray((painted > 0).astype(np.uint8) * 255)
    # the mean over each pixel of the model, so that a stroke thinner than a pixel counts
    paint = paint.resize((preprocessing.width, preprocessing.height), Image.Resampling.BOX)
    write(Image.fromarray((np.asarray(paint) > 64).astype(np.uint8) * 255), target)


def option_settings(model: Model, preset: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return command-line options for the sampling options that differ from the preset.

    Args:
        model: the model.
        preset: name of a preset; left out if the model does not have it.
        values: value of each option; None for those without.
    """
    preset = preset if preset in presets(model) else ""
    base = model.options(preset)
    changed = {name: value for name, value in values.items() if value not in (None, getattr(base, name))}
    return ({"preset": preset} if preset else {}) | changed


def presets(model: Model) -> list[str]:
    """Names of the presets of sampling options; "" for the model's default."""
    built_in = () if model.prior is None else model.prior.presets
    return ["", *dict.fromkeys([*model.presets, *built_in])]
