"""Draw images from a trained prior.

genstack sample runs/flowers-prior --count 64 --seed 0 --out samples/
"""

import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import ceil, sqrt
from pathlib import Path
from typing import Any, Literal

import torch
from einops import repeat
from PIL import Image
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from torch import Tensor

from genstack.atomic import replacing
from genstack.checkpoints.files import TENSORS, load
from genstack.checkpoints.files import save as save_model
from genstack.cli import verbs
from genstack.cli.canvas import Canvas, size_of
from genstack.cli.processes import Process
from genstack.cli.sweep import axes_of, cells_of, join
from genstack.cli.wishes import wishes
from genstack.data.framing import load as read
from genstack.data.images import Preprocessing, save
from genstack.data.sheet import sheet, table
from genstack.editing import blind, known_codes
from genstack.errors import UserError
from genstack.facts import Facts
from genstack.model import Model
from genstack.prior import Condition, SamplingOptions
from genstack.prior.presets import options_of

CHUNK = "genstack"  # the text chunk of a PNG that says how it was drawn
SHEET = 64  # images on the sheet, at most


def run(arguments: list[str]) -> int | None:
    """The verb; the words behind --sweep are one value."""
    return verbs.call(sample, "genstack sample", join(arguments))


def sample(  # noqa: PLR0913, PLR0917  # one argument per flag
    run: str,
    count: int = 16,
    seed: int = 0,
    out: str = "samples",
    classes: str = "",
    caption: str = "",
    captions: str = "",
    condition_images: str = "",
    coordinates: str = "",
    preset: str = "",
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    guidance: float | None = None,
    guidance_schedule: Literal["constant", "linear", "cosine", "power"] | None = None,
    guidance_interval: tuple[float, float] | None = None,
    steps: int | None = None,
    sweep: str = "",
    save_preset: str = "",
    size: str = "",
    overlap: float = 0.5,
    image: str = "",
    keep: str = "",
    mask: str = "",
    place: tuple[float, float] = (0.5, 0.5),
    grow: int | None = None,
    batch_size: int = 32,
    precision: Literal["fp32", "bf16"] = "fp32",
    device: str = "auto",
) -> None:
    """Draw images from a trained prior, or a VAE, as PNG files, with a sheet of them beside the folder.

    With --image, a part of that picture is drawn anew and the rest stays: the part that --keep leaves, the
    white of --mask, or what --size adds around it. Started by torchrun or srun, several processes share the
    work.

    Args:
        run: folder of a prior's run, or of a compressor without codes (a VAE), whose latents are drawn from
            the standard normal.
        count: number of images in all.
        seed: of the set; image i of a seed is the same whatever the batch size and the number of images.
        out: folder for the images, `00000.png` and on, and `samples.jsonl`; what is there already is kept.
        classes: class names or labels like `#3`, separated by commas, drawn in turn; all if left out.
        caption: what every image shall show, in words.
        captions: file with a caption on each line, drawn in turn.
        condition_images: folder of pictures that steer the images, in turn: segmentation maps, edges, small
            pictures to enlarge, whatever the prior was trained on.
        coordinates: where each image lies in a larger picture: top,left,bottom,right as shares of its height
            and width, such as 0,0,0.5,0.5 for its upper left quarter; several, in quotes, in turn.
        preset: options under one name, `fid` (as learned, to be measured), `pretty` (less varied, fewer
            mistakes) or one that the run keeps; the options below come before it.
        temperature: 1 as learned, below 1 safer, above 1 more varied, 0 takes the most likely code each time;
            1 if left out.
        top_k: draw from the k most likely codes only; 0 or left out for all.
        top_p: draw from the smallest set of codes that has at least this probability; 1 or left out for all.
        min_p: draw from codes with at least this share of the likeliest one's probability; 0 or left out for
            all.
        guidance: strength of classifier-free guidance towards the class; 1 or left out for none, 0 ignores
            the class.
        guidance_schedule: how guidance grows from 1 at the first codes to its strength at the last; constant,
            at full strength from the start, if left out.
        guidance_interval: first and last share of the way, from 0 to 1, on which guidance acts; 0,1 if left
            out.
        steps: passes through the network for an image, of priors that can choose (masked, diffusion); 0 or
            left out for the prior's own number.
        sweep: options with several values each, as in `temperature=0.8,1.0 guidance=1,2,4`; draws the same
            images with each combination, and one labelled table of them all.
        save_preset: name under which the run keeps these options, for --preset.
        size: height and width of the images, as in 256x512, where they are not those of the training; the
            prior works through a window that slides over them.
        overlap: share of the window that lies over the one beside it; more is slower and more coherent.
        image: picture of which a part is drawn anew; scaled and cropped as in training.
        keep: part of the picture that stays: top, bottom, left or right, and how much, as in top:0.5.
        mask: picture of the same size as --image, white where it is drawn anew.
        place: where the picture lies on a larger --size: share of the free way from the top and from the
            left.
        grow: codes by which the part that is drawn grows, since codes near it have seen it; measured if left
            out.
        batch_size: images drawn at a time.
        precision: of the networks, fp32 or bf16; bf16 is faster where the hardware has it, and rounds more.
        device: auto, cpu, cuda or mps.
    """
    if count < 1 or batch_size < 1:
        raise UserError(f"count {count} and batch_size {batch_size} must both be at least 1")
    if grow is not None and grow < 0:
        raise UserError(f"grow {grow} is too small; it must be at least 0 codes")
    if sweep and save_preset:
        raise UserError("a sweep is no preset; leave out --sweep or --save-preset")
    process = Process.here()
    model = load(Path(run)).to(choose(device, process.local))
    if model.prior is None and model.compressor.coded:
        raise UserError(
            f"{run} is a compressor; train a prior on it: python train.py prior "
            f"--compressor {run} --config configs/prior/autoregressive.yaml"
        )
    given: dict[str, Any] = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "guidance": guidance,
        "guidance_schedule": guidance_schedule,
        "guidance_interval": guidance_interval,
        "steps": steps,
    }
    condition, kept = model.condition, model.made.get("presets", {})
    axes = axes_of(sweep)
    cells = {
        name: options_of(preset, given | values, kept, condition.dropout > 0)
        for name, values in cells_of(axes).items()
    }
    asked = wishes(classes, caption, captions, condition_images, coordinates, model.preprocessing, count)
    facts = condition.choose(asked, count)
    canvas = Canvas.of(model, image, mask, keep, size_of(size), place) if image or mask or keep else None
    folder = Path(out).resolve()
    samples = Samples(
        model=model,
        condition=condition,
        fingerprint=fingerprint(Path(run) / TENSORS),
        facts=facts,
        options=SamplingOptions(),
        seed=seed,
        folder=folder,
        process=process,
        canvas=canvas,
        size=size_of(size),
        overlap=overlap,
        grow=grow,
        precision=precision,
    )
    sets = {name: replace(samples, options=options, folder=folder / name) for name, options in cells.items()}
    if canvas is not None:
        tell_blindness(model, canvas, grow)
    begun = time.monotonic()
    new = sum(one.draw(batch_size) for one in sets.values())
    speed = f" at {new / (time.monotonic() - begun):.3g} images/s" if new else ""
    if save_preset and process.rank == 0:  # after the images, which the prior may have refused to draw so
        plain = asdict(SamplingOptions())
        chosen = {name: value for name, value in asdict(cells[""]).items() if value != plain[name]}
        model.made["presets"] = {**kept, save_preset: chosen}
        save_model(model, Path(run))
    missing = sum(one.missing for one in sets.values())
    if missing:
        print(
            f"process {process.rank} of {process.count} is done ({new} new){speed}; {missing} images to come"
        )
        return
    page = folder.with_name(folder.name + ".png")
    with replacing(page) as partial:
        sheet_of(sets, axes).save(partial, format="PNG")
    print(f"{count * len(sets)} images in {out} ({new} new){speed}; {page} shows them")


def choose(device: str, local: int = 0) -> str:
    """The device to run on; with several processes on one machine, each has its own."""
    if device == "auto":
        if torch.cuda.is_available():
            return f"cuda:{local % torch.cuda.device_count()}"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # unknown, or this torch was built without it
        raise UserError(f"device {device} is not there; use auto, cpu, cuda or mps") from error
    return device


def fingerprint(path: Path) -> str:
    """A hash of a model's weights; whatever else is in the file may change, such as its presets."""
    with path.open("rb") as file:
        file.seek(int.from_bytes(file.read(8), "little"), 1)  # the header, by its length
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def tell_blindness(model: Model, canvas: Canvas, grow: int | None) -> None:
    """Say so where a prior cannot see all that is kept."""
    images = repeat(canvas.image, "c h w -> 1 c h w").to(model.device)
    layout = model.compressor.layout(*canvas.hole.shape)
    assert model.prior is not None  # where there are codes, there is one
    steps = model.reach if grow is None else (grow,) * len(layout.grids)
    if blind(model.prior, known_codes(model.compressor, images, canvas.hole, steps)):
        way, behind = "row by row", "below and to the right"
        if len(layout.grids) > 1:
            way, behind = "grid by grid", "on finer grids"
        print(
            f"{type(model.prior).__name__} sees only the codes before each one, {way}: "
            f"what is kept {behind} does not steer it",
            file=sys.stderr,
        )


@dataclass
class Samples:
    """A set of images to draw.

    Args:
        model: with a prior.
        condition: of the prior.
        fingerprint: of the model's weights.
        facts: what steers every image.
        options: how codes are drawn.
        seed: of the set.
        folder: where the images go.
        process: which share of them is drawn here.
        canvas: the picture that is edited; None for images that are new altogether.
        size: of the images; None for that of the training.
        overlap: of the windows.
        grow: codes by which the hole of the canvas grows; None for the reach of the encoder.
        precision: of the networks.
    """

    model: Model
    condition: Condition
    fingerprint: str
    facts: Facts
    options: SamplingOptions
    seed: int
    folder: Path
    process: Process
    canvas: Canvas | None
    size: tuple[int, int] | None
    overlap: float
    grow: int | None
    precision: str

    @cached_property
    def told(self) -> Sequence[Mapping[str, str]]:
        """What steers every image, in words."""
        return self.condition.tell(self.facts)

    @property
    def preprocessing(self) -> Preprocessing:
        """How files of this size are read."""
        model = self.model.preprocessing
        height, width = self.size or (model.height, model.width)
        return replace(model, height=height, width=width)

    @property
    def missing(self) -> int:
        """Number of images that are not there yet."""
        return sum(not self.path(index).exists() for index in range(len(self.facts)))

    def draw(self, batch_size: int) -> int:
        """Draw this process's images that are not there yet; the number of these."""
        missing = [index for index in range(len(self.facts)) if not self.drawn(index)]
        mine = self.process.share(missing)
        batches = [mine[first : first + batch_size] for first in range(0, len(mine), batch_size)]
        with bar() as progress:
            task = progress.add_task(self.folder.name, total=len(mine), visible=bool(mine))
            for batch in batches:
                with torch.autocast(self.model.device.type, torch.bfloat16, self.precision == "bf16"):
                    images = self.images(batch)
                for index, image in zip(batch, images, strict=True):
                    save(image.cpu(), self.path(index), self.preprocessing, {CHUNK: self.card(index)})
                progress.advance(task, len(batch))
        lines = "".join(self.card(index) + "\n" for index in range(len(self.facts)))
        with replacing(self.folder / "samples.jsonl") as path:
            path.write_text(lines, encoding="utf-8")
        return len(mine)

    def images(self, batch: list[int]) -> Tensor:
        """The images with these numbers."""
        facts = self.facts[batch]
        if self.canvas is None:
            return self.model.sample(facts, self.options, self.seed, batch, self.size, self.overlap)
        images = repeat(self.canvas.image, "c h w -> b c h w", b=len(batch))
        hole = self.canvas.hole
        return self.model.edit(
            images, hole, facts, self.options, self.seed, batch, self.grow, self.overlap
        ).float()

    def path(self, index: int) -> Path:
        """File of an image."""
        return self.folder / f"{index:05d}.png"

    def card(self, index: int) -> str:
        """How an image is drawn, as JSON: what its PNG carries, and its line in samples.jsonl."""
        of: dict[str, Any] = {"precision": self.precision} if self.precision != "fp32" else {}
        if self.size is not None:
            of |= {"size": list(self.size), "overlap": self.overlap}
        if self.canvas is not None:
            of |= {**self.canvas.told, "grow": list(self.model.reach) if self.grow is None else self.grow}
        drawn = {
            "file": self.path(index).name,
            "seed": self.seed,
            "index": index,
            **self.told[index],
            **asdict(self.options),
            **of,
        }
        return json.dumps(drawn | {"model": self.fingerprint}, ensure_ascii=False)

    def drawn(self, index: int) -> bool:
        """Whether an image is there already.

        Raises:
            UserError: there is another image in its place.
        """
        if not self.path(index).exists():
            return False
        with Image.open(self.path(index)) as picture:
            found = picture.info.get(CHUNK)
        if found != self.card(index):
            raise UserError(
                f"{self.path(index)} is another image, or drawn with other settings; choose another --out"
            )
        return True

    def sheet(self, columns: int) -> Image.Image:
        """The first images on one sheet, each over what steers it."""
        shown = range(min(SHEET, len(self.facts)))
        pictures = torch.stack([read(self.path(index), self.preprocessing) for index in shown])
        names = [", ".join(self.told[index].values()) for index in shown]
        return sheet(pictures, columns, labels=names if any(names) else None)


def sheet_of(sets: Mapping[str, Samples], axes: Mapping[str, Sequence[Any]]) -> Image.Image:
    """The one set, or a table of all sets of a sweep, the last axis from left to right."""
    every = list(sets.values())
    if not axes:
        return every[0].sheet(columns=min(8, len(every[0].facts)))
    side = ceil(sqrt(min(SHEET, len(every[0].facts))))
    *down, across = axes
    columns = [f"{across} {value}" for value in axes[across]]
    rows = [
        name.replace("=", " ").replace(",", "\n") for name in cells_of({name: axes[name] for name in down})
    ]
    pages = [one.sheet(side) for one in every]
    return table(
        [pages[first : first + len(columns)] for first in range(0, len(pages), len(columns))], rows, columns
    )


class Speed(ProgressColumn):
    """Images a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.3g} images/s" if speed else "")


def bar() -> Progress:
    """A line that moves, on a terminal; nothing without one."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(20),
        MofNCompleteColumn(),
        Speed(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)
