"""Sample images from a trained prior.

genstack sample runs/flowers-prior --count 64 --seed 0 --out samples/
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, sqrt
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace
from PIL.Image import Image

from genstack import models
from genstack.atomic import shared_folder, temporary_files
from genstack.checkpoints.model_file import TENSORS, load, save
from genstack.cli.commands import SAMPLE
from genstack.cli.next_steps import next_command
from genstack.cli.parsing.device import choose_device
from genstack.cli.parsing.edit import Edit, parse_size
from genstack.cli.parsing.parser import Parser, to_dataclass
from genstack.cli.parsing.paths import Place, Trained, check_overwriting
from genstack.cli.parsing.prompts import PromptFlags, select_inputs
from genstack.cli.parsing.sampling_options import parse_sweep, resolve_options
from genstack.cli.progress_bar import bar
from genstack.cli.verbs.doctor import check_compiler, compiler_obstacle
from genstack.data.images import write
from genstack.data.npz import write_pieces
from genstack.dist import Process
from genstack.errors import UserError
from genstack.model import Model
from genstack.sampling import Gallery, Series, Sweep
from genstack.sampling.compilation import Compilation
from genstack.sampling.gallery import SHEET


@dataclass(frozen=True)
class Request:
    """Sample PNG images from a trained prior or a VAE, and write a sheet beside their folder.

    --image edits a picture. One part of it is kept and the rest is sampled: --keep names the part to keep,
    --mask is white where to sample, and a larger --size alone keeps the whole picture and samples around it.

    Processes started by torchrun or srun share the work.

    Args:
        run: run folder of a prior or a VAE, a published file, or a model listed by `genstack config models`.
        count: total number of images.
        seed: random seed; image i depends only on the seed and i, not on batch size or count.
        out: folder for the images (`00000.png`, `00001.png`, ...) and `samples.jsonl`; existing images
            are kept.
        npz: also write all images into one .npz file (arr_0, uint8), the format of ADM's evaluation, which
            `genstack evaluate` reads.
    """

    run: Trained
    count: int = 16
    seed: int = 0
    out: Place = "samples"
    npz: Place = ""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"count must be at least 1, got {self.count}")


@dataclass(frozen=True)
class SearchFlags:
    """Flags that compare and save sampling options.

    Args:
        sweep: several values per option, as in `temperature=0.8,1.0 guidance=1,2,4`: sample the same images
            with each combination, and write one labelled table.
        save_preset: save these options in the run under this name, for --preset.
    """

    sweep: tuple[str, ...] = ()
    save_preset: str = ""

    def __post_init__(self) -> None:
        if self.sweep and self.save_preset:
            raise UserError("--save-preset saves one set of options; leave out --sweep or --save-preset")


@dataclass(frozen=True)
class ComputeFlags:
    """Flags of speed, memory and precision.

    Args:
        batch_size: images sampled at a time.
        precision: fp32 or bf16; bf16 is faster where the hardware supports it, and less exact.
        device: auto, cpu, cuda or mps.
        compile: compile transformers and decoder with torch.compile (15 to 40 seconds on a CPU): true, false,
            or auto, which compiles if the remaining batches would take over 2.5 minutes.
    """

    batch_size: int = 32
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = "auto"
    compile: bool | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.compile is True:
            check_compiler()


def run(arguments: list[str]) -> int | None:
    """Run a command line."""
    sample(Parser(SAMPLE).parse(arguments))
    return None


def sample(settings: Namespace) -> None:
    """Sample this process's share of the images, and write the sheet once all images exist."""
    request, search = to_dataclass(Request, settings), to_dataclass(SearchFlags, settings)
    compute = to_dataclass(ComputeFlags, settings)
    if request.npz and (search.sweep or not request.npz.endswith(".npz")):
        raise UserError(
            "--npz names one .npz file of one set of images; leave out --sweep, or end it in .npz"
        )
    if search.save_preset and models.contains(Path(request.run)):
        raise UserError(
            f"{request.run} comes with genstack and is not changed; copy it, and name the copy: "
            f"genstack export {Path(request.run).name} --out runs/{Path(request.run).name}"
        )
    if search.save_preset and not (Path(request.run) / TENSORS).is_file():
        raise UserError(
            f"presets are saved in runs, and {request.run} is a file; import it first with genstack import"
        )
    process, folder = Process.from_environment(), Path(request.out).resolve()
    check_overwriting(page := folder.with_name(folder.name + ".png"))
    model = load_sampler(request.run).to(choose_device(compute.device, process.local_rank))
    sweep = Sweep(parse_sweep(search.sweep))
    options = {name: resolve_options(settings, model, cell) for name, cell in sweep.cells.items()}
    series = make_series(settings, model, request, compute)
    for note in (preset_note(settings.preset, model), context_note(series)):
        if note and process.rank == 0:
            print(note, file=sys.stderr)
    galleries = [Gallery(replace(series, options=each), folder / name) for name, each in options.items()]
    done = sample_share(galleries, process, compute)
    if search.save_preset and process.rank == 0:  # after sampling, since the prior may reject the options
        model.save_preset(search.save_preset, options[""])
        save(model, Path(request.run))
    if missing := sum(len(gallery.missing) for gallery in galleries):
        print(f"process {process.rank} of {process.world_size} is done {done}; {missing} images are missing")
        return
    if request.npz:
        write_npz(galleries, Path(request.npz))
    with shared_folder(folder, temporary_files(page.parent, page.name)):
        write(make_sheet(galleries, sweep), page)
    print(f"{request.count * len(galleries)} images in {request.out} {done}; {page} shows them")


def load_sampler(run: str) -> Model:
    """Load a model to sample from; a compressor of codes is an error."""
    model = load(Path(run))
    if not model.can_sample:
        raise UserError(f"{run} is a compressor; train a prior on it: {next_command(model, run)}")
    return model


def make_series(settings: Namespace, model: Model, request: Request, compute: ComputeFlags) -> Series:
    """Describe the images to sample."""
    edit = to_dataclass(Edit, settings)
    size = parse_size(edit.size)
    trained = (model.preprocessing.height, model.preprocessing.width)
    if edit.overlap != Edit.overlap and size in (None, trained):
        raise UserError(f"--overlap {edit.overlap} has no effect on a single window; add a larger --size")
    height, width = size or trained
    preprocessing = replace(model.preprocessing, height=height, width=width)
    prompts = to_dataclass(PromptFlags, settings).prompts(preprocessing, request.count, model.classes)
    return Series(
        model=model,
        inputs=select_inputs(model.condition, prompts, request.count),
        seed=request.seed,
        canvas=edit.canvas(model),
        size=size,
        overlap=edit.overlap,
        precision=compute.precision,
    )


def sample_share(galleries: Sequence[Gallery], process: Process, compute: ComputeFlags) -> str:
    """Sample this process's share of the missing images; return a summary of number and speed."""
    shares = [process.share(gallery.missing) for gallery in galleries]
    new, start = sum(map(len, shares)), time.monotonic()
    size = min(compute.batch_size, max(map(len, shares)))
    batches = sum(ceil(len(share) / size) for share in shares if share)
    compilation = Compilation(compute.compile, batches, galleries[0].series.compiled, compiler_obstacle)
    with bar() as progress, compilation:
        for gallery, mine in zip(galleries, shares, strict=True):
            task = progress.add_task(gallery.folder.name, total=len(mine), visible=bool(mine))
            gallery.write(mine, size or 1, partial(progress.advance, task), compilation.sample)
    pace = f" at {new / (time.monotonic() - start):.3g} images/s" if new else ""
    return f"({new} new)" + pace + (", compiling included" if pace and compilation.used else "")


def write_npz(galleries: Sequence[Gallery], path: Path) -> None:
    """Write the images of a gallery to an .npz file, one after the other."""
    gallery = galleries[0]
    shape = (len(gallery.series), *gallery.pixels(0).shape)
    with shared_folder(gallery.folder, temporary_files(path.parent, path.name)):
        write_pieces(path, "arr_0", shape, "uint8", (gallery.pixels(index) for index in range(shape[0])))


def make_sheet(galleries: Sequence[Gallery], sweep: Sweep) -> Image:
    """Draw the sheet of one gallery, or the table of a sweep."""
    shown = min(SHEET, len(galleries[0].series))
    columns = ceil(sqrt(shown)) if sweep.axes else min(8, shown)
    return sweep.table([gallery.sheet(columns) for gallery in galleries])


def preset_note(preset: str, model: Model) -> str:
    """Name the options of the preset that applies without --preset; "" without one."""
    options = {} if preset else model.presets.get("default", {})
    if not options:
        return ""
    return "using the model's preset 'default': " + ", ".join(
        f"{name} {value}" for name, value in options.items()
    )


def context_note(series: Series) -> str:
    """Say that the prior does not see all kept parts of the picture; "" if it does."""
    model = series.model
    if not series.ignores_known:
        return ""
    order, later = "row by row", "below and to the right"
    if len(model.layout.grids) > 1:
        order, later = "grid by grid", "on finer grids"
    return (
        f"{type(model.prior).__name__} sees only earlier codes, {order}: kept parts {later} do not affect "
        f"its samples"
    )
