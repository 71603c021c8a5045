"""Estimate memory and time of a training, or propose settings for a folder.

genstack plan DIR
"""

import shlex
from dataclasses import dataclass
from difflib import get_close_matches
from math import prod
from pathlib import Path

import torch
from jsonargparse import Namespace

from genstack.cli.commands import commands
from genstack.cli.parsing.parser import Parser, to_dataclass
from genstack.cli.parsing.paths import Place
from genstack.cli.parsing.sizes import SIZES, Size
from genstack.cli.parsing.stages import STAGES, Stage, build_training
from genstack.cli.parsing.words import unknown
from genstack.cli.proposal import FEWEST, LARGEST_ON_CPU, STEPS_ON_CPU, Cost, Proposal, survey
from genstack.data.sources import open_source
from genstack.errors import UserError
from genstack.layout import Layout
from genstack.losses.schedule import steps
from genstack.training.estimate import STEPS, Estimate, Memory, OutOfMemory, memory_errors, stop_at_once
from genstack.training.run import Run
from genstack.training.training import Training

LONGEST = 86400.0  # seconds of a training that is proposed


@dataclass(frozen=True)
class Pictures:
    """Propose resolution, recipe and size for pictures, and estimate memory and time on this machine.

    Args:
        source: anything that `--data.source` takes, such as a folder of pictures.
        size: size to estimate; null for the largest that suits the number of pictures, fits the memory and
            trains within a day.
    """

    source: Place
    size: Size | None = None


def run(arguments: list[str]) -> int | None:
    """Run a command line."""
    if arguments[0] in STAGES:
        stage = STAGES[arguments[0]]
        print_plan(stage, stage.parse(arguments[1:]))
    else:
        propose(to_dataclass(Pictures, Parser(commands()["plan"]).parse(arguments)))
    return None


def propose(request: Pictures) -> None:
    """Measure sizes from the smallest on, and print the commands of the largest that fits.

    Raises:
        UserError: not even the smallest fits the memory.
    """
    name = request.source
    if get_close_matches(name, STAGES, n=1) and not Path(name).expanduser().exists():
        raise UserError(unknown("stage or folder", name, STAGES))
    pictures, gpu = survey(open_source(name)), torch.cuda.is_available()
    proposals = [Proposal(name, pictures, size, gpu) for size in ([request.size] if request.size else SIZES)]
    print(f"pictures {pictures.count:,}, the shorter side of half of them has {pictures.side} pixels or more")
    shorter = "" if gpu else f" (no GPU: at most {LARGEST_ON_CPU} pixels, and {STEPS_ON_CPU} steps)"
    print(f"images   {proposals[0].resolution} pixels wide and high{shorter}")
    print("measuring a few steps of both stages, size by size ...", flush=True)
    chosen, reason = None, "the largest size"
    for proposal in proposals:
        size, fewest = proposal.size, FEWEST[proposal.size]
        if pictures.count < fewest and request.size is None:
            reason = f"{size} suits {fewest:,} pictures or more"
            break
        costs = print_costs(proposal)
        if costs is None:
            reason = f"{size} does not fit the memory"
            break
        longest = max(cost.steps * cost.seconds for cost in costs)
        if longest > LONGEST and chosen:
            reason = f"{size} takes {duration(longest)}"
            break
        chosen = proposal
    if chosen is None:
        raise UserError(f"--size {reason}; {smaller_advice(proposals[0])}")
    print(f"propose  --size {chosen.size} ({'as you asked' if request.size else reason})")
    first, then = chosen.commands()
    print(f"first    {first}\nthen     {then}")
    print("nothing was written", flush=True)


def smaller_advice(proposal: Proposal) -> str:
    """Suggest what to do if a size does not fit."""
    if proposal.size != SIZES[0]:
        return f"genstack plan {shlex.quote(proposal.source)} looks for one that does"
    return f"lower --data.batch-size or --data.resolution of: {proposal.commands()[0]}"


def print_costs(proposal: Proposal) -> list[Cost] | None:
    """Print and return what both stages cost; None if one does not fit the memory."""
    costs = []
    try:
        for cost in proposal.costs():
            print(f"{proposal.size:8} {cost_line(cost)}", flush=True)
            costs.append(cost)
    except OutOfMemory as error:
        print(f"{proposal.size:8} {error}", flush=True)
        return None
    return costs if costs[-1].memory.fits else None


def cost_line(cost: Cost) -> str:
    """Format weights, memory and time of a stage."""
    memory = cost.memory
    line = f"{cost.stage:10}  {cost.weights / 1e6:5.1f} M weights"
    if memory.needed:
        line += f"  {memory.needed / 1e9:5.2f} of {memory.available / 1e9:.2f} GB"
    if not memory.fits:
        return f"{line}: does not fit"
    return f"{line}  {cost.steps} steps of {cost.seconds:.3g} s: {duration(cost.steps * cost.seconds)}"


def print_plan(stage: Stage, settings: Namespace) -> None:
    """Run a few training steps, and print the estimate."""
    with memory_errors("the weights do not fit into the memory"):
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
