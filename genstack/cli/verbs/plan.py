"""Estimate memory, time and model size of a training, and write nothing.

genstack plan DIR
"""

import re
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from math import prod
from pathlib import Path
from statistics import median
from typing import Literal

import torch
from jsonargparse import Namespace

from genstack.cli.commands import commands
from genstack.cli.parsing.parser import Parser, to_dataclass
from genstack.cli.parsing.paths import Place
from genstack.cli.parsing.sizes import SIZES
from genstack.cli.parsing.stages import STAGES, Stage, build_training
from genstack.cli.parsing.words import unknown
from genstack.data.source import Source
from genstack.data.sources import open_source
from genstack.errors import UserError
from genstack.layout import Layout
from genstack.losses.schedule import steps
from genstack.training.estimate import STEPS, Estimate, Memory
from genstack.training.run import Run
from genstack.training.training import Training

#: Sides of images that are proposed, and numbers of pictures below which a size is; rules of thumb.
RESOLUTIONS = (8, 16, 32, 64, 128, 256)
FEWEST = {"tiny": 5_000, "small": 100_000, "base": 1_000_000}
SAMPLED = 200  # pictures whose size is looked at
GENERATED = 64  # pixels of pictures that are drawn on demand
FEW_CODES = 256  # of one image, up to which a prior samples code after code
LARGEST_ON_CPU = 32  # pixels of images that a CPU learns within hours
STEPS_ON_CPU = "5000"


@dataclass(frozen=True)
class Pictures:
    """Propose resolution, recipe and size for pictures, and estimate memory and time on this machine.

    Args:
        source: anything that `--data.source` takes, such as a folder of pictures.
        size: size to propose; null for the one that suits the number of pictures, or the next smaller one
            that fits the memory.
    """

    source: Place
    size: Literal["tiny", "small", "base", "large"] | None = None


def run(arguments: list[str]) -> int | None:
    """Run a command line."""
    if arguments[0] in STAGES:
        stage = STAGES[arguments[0]]
        print_plan(stage, stage.parse(arguments[1:]))
    else:
        propose(to_dataclass(Pictures, Parser(commands()["plan"]).parse(arguments)))
    return None


def propose(pictures: Pictures) -> None:
    """Print commands for both stages, and the estimate of the first."""
    name = pictures.source
    if get_close_matches(name, STAGES, n=1) and not Path(name).expanduser().exists():
        raise UserError(unknown("stage or folder", name, STAGES))
    source = open_source(name)
    side = int(median(picture_sides(source)))
    gpu = torch.cuda.is_available()
    most = side if gpu else min(side, LARGEST_ON_CPU)
    resolution = max((one for one in RESOLUTIONS if one <= most), default=RESOLUTIONS[0])
    size = next((size for size, most in FEWEST.items() if len(source) < most), "large") if gpu else "tiny"
    why = (
        f"{len(source):,} pictures"
        if gpu
        else f"no GPU: at most {LARGEST_ON_CPU} pixels and {STEPS_ON_CPU} steps"
    )
    print(f"pictures {len(source):,}, the shorter side of half of them has {side} pixels or more")
    print(f"propose  resolution {resolution}, --size {size} ({why})")
    sizes = [pictures.size] if pictures.size else SIZES[SIZES.index(size) :: -1]
    for tried in sizes:
        if tried != size:
            print(f"instead  --size {tried} ({'as you asked' if pictures.size else 'smaller'})")
        if print_proposal(name, resolution, tried):
            break
    others = ", ".join(other for other in SIZES if other not in sizes)
    if others:
        print(f"genstack plan {shlex.quote(name)} --size SIZE estimates another size: {others}")


def print_proposal(name: str, resolution: int, size: str) -> bool:
    """Print commands for both stages, and the estimate of the first; return True if it fits the memory."""
    compressor, prior = ("vqgan", "autoregressive")
    if resolution < 32:  # that recipe halves the side three times
        compressor, prior = "configs/demo/compressor.yaml", "configs/demo/prior.yaml"
    elif (resolution // 8) ** 2 > FEW_CODES:
        prior = "masked"
    run_name = re.sub(r"[^\w-]+", "-", Path(name).stem).strip("-") or "pictures"
    data = ["--data.source", name, "--data.resolution", str(resolution)]
    short = [] if torch.cuda.is_available() else ["--trainer.max-steps", STEPS_ON_CPU]
    words = ["--config", compressor, "--size", size, *data, *short, "--name", run_name]
    print(f"first    genstack train compressor {shlex.join(words)}")
    then = [
        "--compressor",
        f"runs/{run_name}",
        "--config",
        prior,
        "--size",
        size,
        *short,
        "--name",
        f"{run_name}-prior",
    ]
    print(f"then     genstack train prior {shlex.join(then)}")
    print(
        "here is the estimate of the first; `genstack plan prior ...` estimates the other after it",
        flush=True,
    )
    stage = STAGES["compressor"]
    return print_plan(stage, stage.parse(words))


def picture_sides(source: Source) -> list[int]:
    """The shorter sides of some pictures, spread over all.

    Raises:
        UserError: none can be read.
    """
    sides = []
    for number in range(0, len(source), max(1, len(source) // SAMPLED)):
        with suppress(UserError):
            info = source.info(number)
            sides.append(min(info.height, info.width) or GENERATED)
    if not sides:
        raise UserError("no picture can be read; genstack data check lists why")
    return sides


def print_plan(stage: Stage, settings: Namespace) -> bool:
    """Run a few training steps, print the estimate, and return True if it fits the memory."""
    parts, training = build_training(stage, settings, Run(Path()))
    estimate = Estimate(training, parts.trainer)
    print("\n".join([model_line(training), *code_lines(training), *batch_lines(estimate)]), flush=True)
    with stop_at_once():
        memory = estimate.memory()
        print(memory_line(memory), flush=True)
        if memory.fits:
            print(f"measuring the time of {STEPS} steps ...", flush=True)
            print(time_line(estimate))
    print("nothing was written", flush=True)
    return memory.fits


@contextmanager
def stop_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process in the middle of a step, as nothing needs to be saved."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def model_line(training: Training) -> str:
    """Describe class and weights of the model."""
    total = sum(parameter.numel() for parameter in training.model.parameters())
    return f"model    {type(training.model).__name__}, {total / 1e6:.4g} M weights"


def code_lines(training: Training) -> list[str]:
    """Describe image size, codes or latents, and compression ratio."""
    seen, layout = training.data.preprocessing, layout_of(training)
    pixels, encoded = prod(seen.shape) * seen.bits / 8, layout.bits / 8
    channels = f"{seen.channels} channel{'s' * (seen.channels > 1)}"
    sizes = f"{pixels:,.0f} bytes of pixels, {encoded:,.1f} of {layout.unit}"
    return [
        f"images   {seen.height}x{seen.width}, {channels}, as {training.representation}",
        f"ratio    {pixels / encoded:.3g} to 1: {sizes}",
    ]


def layout_of(training: Training) -> Layout:
    """Return the layout of the codes or latents."""
    layout = getattr(training, "layout", None)
    if layout is not None:
        return layout
    return training.model.layout(training.data.preprocessing.height, training.data.preprocessing.width)


def batch_lines(estimate: Estimate) -> list[str]:
    """Describe batch size and learning rate."""
    schedule, optimization = estimate.schedule, estimate.training.optimization
    warmup = steps(optimization.warmup, schedule.max_steps)
    factors = f"{schedule.processes} x {schedule.accumulate_grad_batches} x {estimate.micro_batch}"
    split = estimate.micro_batch < estimate.batch_size
    return [
        f"batch    {estimate.batch_size} images a step" + f" (processes x parts x images: {factors})" * split,
        f"rate     {optimization.learning_rate:g} after {warmup} steps of warm-up, "
        f"{optimization.final * optimization.learning_rate:g} at the end",
    ]


def memory_line(memory: Memory) -> str:
    """Compare the memory needed with the memory available."""
    if not memory.needed:
        return "memory   unknown on this system"
    how = "measured" if memory.measured else "extrapolated from smaller batches"
    line = (
        f"memory   about {memory.needed / 1e9:.2f} GB of the {memory.available / 1e9:.2f} GB of "
        f"{memory.device} ({how})"
    )
    if memory.fits:
        return f"{line}: it fits"
    return (
        f"{line}: it does not fit; raise trainer.accumulate_grad_batches, or lower data.batch_size, "
        f"data.resolution or the width of the network"
    )


def time_line(estimate: Estimate) -> str:
    """Estimate the duration of all steps."""
    each, count = estimate.seconds(), estimate.schedule.max_steps
    return (
        f"time     {count} steps of {each:.3g} s: {duration(each * count)}, without validation "
        f"(from {STEPS} steps in this process alone)"
    )


def duration(seconds: float) -> str:
    """Format a time in its largest unit."""
    for name, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {name}"
    return f"{seconds:.0f} seconds"
