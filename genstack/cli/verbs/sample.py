"""Draw images from a trained prior.

genstack sample runs/flowers-prior --count 64 --seed 0 --out samples/
"""

import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, sqrt
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace
from PIL.Image import Image

from genstack.atomic import begun, replacing, shared
from genstack.checkpoints.model_file import TENSORS, load, save
from genstack.cli.next_steps import next_command
from genstack.cli.parsing.device import choose
from genstack.cli.parsing.edit import Edit, size_of
from genstack.cli.parsing.options import add_options, chosen
from genstack.cli.parsing.parser import Parser, made
from genstack.cli.parsing.prompts import Shown
from genstack.cli.parsing.sweep import axes_of, join
from genstack.cli.progress_bar import bar
from genstack.cli.verbs.doctor import check_compiler
from genstack.dist import Process
from genstack.errors import UserError
from genstack.model import Model
from genstack.sampling import Gallery, Series, Sweep
from genstack.sampling.gallery import SHOWN

HELP = """Draw images from a trained prior, or a VAE, as PNG files, with a sheet of them beside the folder.

With --image, a part of that picture is drawn anew and the rest stays: the part that --keep leaves, the
white of --mask, or what --size adds around it. Started by torchrun or srun, several processes share the
work."""


@dataclass(frozen=True)
class Wanted:
    """How many images, of which run, and where they go.

    Args:
        run: folder of a prior's run, or of a compressor without codes (a VAE), whose latents are drawn from
            the standard normal; or a published file.
        count: number of images in all.
        seed: of the set; image i of a seed is the same whatever the batch size and the number of images.
        out: folder for the images, `00000.png` and on, and `samples.jsonl`; what is there already is kept.
    """

    run: str
    count: int = 16
    seed: int = 0
    out: str = "samples"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"count {self.count} is too small; it must be at least 1")


@dataclass(frozen=True)
class Search:
    """The search for options.

    Args:
        sweep: options with several values each, as in `temperature=0.8,1.0 guidance=1,2,4`; draws the same
            images with each combination, and one labelled table of them all.
        save_preset: name under which the run keeps these options, for --preset.
    """

    sweep: str = ""
    save_preset: str = ""

    def __post_init__(self) -> None:
        if self.sweep and self.save_preset:
            raise UserError("a sweep is no preset; leave out --sweep or --save-preset")


@dataclass(frozen=True)
class Work:
    """How the work is done, whatever the images are.

    Args:
        batch_size: images drawn at a time.
        precision: of the networks, fp32 or bf16; bf16 is faster where the hardware has it, and rounds more.
        device: auto, cpu, cuda or mps.
        compile: compile transformers and decoder with torch.compile, half a minute or more; pays for many
            images.
    """

    batch_size: int = 32
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"batch_size {self.batch_size} is too small; it must be at least 1")
        if self.compile:
            check_compiler()


def command() -> Parser:
    """The command line."""
    parser = Parser("genstack sample", HELP)
    parser.add_flags(Wanted)
    parser.add_flags(Shown)
    add_options(parser)
    parser.add_flags(Search)
    parser.add_flags(Edit)
    parser.add_flags(Work)
    return parser


def run(arguments: list[str]) -> int | None:
    """The verb; the words behind --sweep are one value."""
    sample(command().parse(join(arguments)))
    return None


def sample(settings: Namespace) -> None:
    """Draw this process's share of the images, and the sheet once all of them are there."""
    wanted, search, work = made(Wanted, settings), made(Search, settings), made(Work, settings)
    if search.save_preset and not (Path(wanted.run) / TENSORS).is_file():
        raise UserError(
            f"a preset is kept in a run, and {wanted.run} is none; make it one by genstack import"
        )
    if not wanted.out:
        raise UserError("--out is empty; name a folder for the images")
    process, folder = Process.from_environment(), Path(wanted.out).resolve()
    model = drawable(wanted.run).to(choose(work.device, process.local_rank))
    sweep = Sweep(axes_of(search.sweep))
    options = {name: chosen(settings, model, cell) for name, cell in sweep.cells.items()}
    series = series_of(settings, model)
    if series.blind:
        tell_blindness(model)
    galleries = [Gallery(replace(series, options=each), folder / name) for name, each in options.items()]
    done = draw(galleries, process, work)
    if search.save_preset and process.rank == 0:  # after the images, which the prior may have refused to draw
        model.keep(search.save_preset, options[""])
        save(model, Path(wanted.run))
    if missing := sum(len(gallery.missing) for gallery in galleries):
        print(f"process {process.rank} of {process.world_size} is done {done}; {missing} images to come")
        return
    page = folder.with_name(folder.name + ".png")
    with shared(folder, begun(page.parent, page.name)), replacing(page) as partial:
        sheets(galleries, sweep).save(partial, format="PNG")
    print(f"{wanted.count * len(galleries)} images in {wanted.out} {done}; {page} shows them")


def drawable(run: str) -> Model:
    """The model of a run, if it can draw."""
    model = load(Path(run))
    if not model.draws:
        raise UserError(f"{run} is a compressor; train a prior on it: {next_command(model, run)}")
    return model


def series_of(settings: Namespace, model: Model) -> Series:
    """The images that are asked for."""
    wanted, edit, work = made(Wanted, settings), made(Edit, settings), made(Work, settings)
    size = size_of(edit.size)
    height, width = size or (model.preprocessing.height, model.preprocessing.width)
    seen = replace(model.preprocessing, height=height, width=width)
    wishes = made(Shown, settings).wishes(seen, wanted.count, model.classes)
    return Series(
        model=model,
        facts=model.condition.choose(wishes, wanted.count),
        seed=wanted.seed,
        canvas=edit.canvas(model),
        size=size,
        overlap=edit.overlap,
        precision=work.precision,
    )


def draw(galleries: Sequence[Gallery], process: Process, work: Work) -> str:
    """Draw a process's share of what is missing; says how many images that were, and how fast."""
    shares = [process.share(gallery.missing) for gallery in galleries]
    new, start = sum(map(len, shares)), time.monotonic()
    size = min(work.batch_size, max(map(len, shares)))
    with bar() as progress, galleries[0].series.compiled() if work.compile and new else nullcontext():
        if work.compile and new:
            print("the first batch waits for the compiler, half a minute or more", file=sys.stderr)
        for gallery, mine in zip(galleries, shares, strict=True):
            task = progress.add_task(gallery.folder.name, total=len(mine), visible=bool(mine))
            gallery.draw(mine, size or 1, partial(progress.advance, task), even=work.compile)
    pace = f" at {new / (time.monotonic() - start):.3g} images/s" if new else ""
    return f"({new} new)" + pace + (", compiling included" if pace and work.compile else "")


def sheets(galleries: Sequence[Gallery], sweep: Sweep) -> Image:
    """The sheet of the only gallery, or a table of those of a sweep."""
    shown = min(SHOWN, len(galleries[0].series))
    columns = ceil(sqrt(shown)) if sweep.axes else min(8, shown)
    return sweep.table([gallery.sheet(columns) for gallery in galleries])


def tell_blindness(model: Model) -> None:
    """Say that a prior cannot see all that is kept."""
    way, behind = "row by row", "below and to the right"
    if len(model.layout.grids) > 1:
        way, behind = "grid by grid", "on finer grids"
    print(
        f"{type(model.prior).__name__} sees only the codes before each one, {way}: "
        f"what is kept {behind} does not steer it",
        file=sys.stderr,
    )
