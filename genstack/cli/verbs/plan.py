"""Estimate memory, time and model size of a training, and write nothing.

genstack plan compressor --config vqgan --data.source DIR
"""

from math import prod
from pathlib import Path

from jsonargparse import Namespace

from genstack.cli.parsing.stages import STAGES, Stage, build_training
from genstack.layout import Layout
from genstack.losses.schedule import steps
from genstack.training.estimate import STEPS, Estimate, Memory
from genstack.training.run import Run
from genstack.training.training import Training


def run(arguments: list[str]) -> int | None:
    """Run a command line."""
    stage = STAGES[arguments[0]]
    print_plan(stage, stage.parse(arguments[1:]))
    return None


def print_plan(stage: Stage, settings: Namespace) -> None:
    """Run a few training steps, and print the estimate."""
    parts, training = build_training(stage, settings, Run(Path()))
    estimate = Estimate(training, parts.trainer)
    print("\n".join([model_line(training), *code_lines(training), *batch_lines(estimate)]), flush=True)
    memory = estimate.memory()
    print(memory_line(memory), flush=True)
    if memory.fits:
        print(time_line(estimate))
    print("nothing was written")


def model_line(training: Training) -> str:
    """Describe class and weights of the model."""
    total = sum(parameter.numel() for parameter in training.model.parameters())
    return f"model    {type(training.model).__name__}, {total / 1e6:.4g} M weights"


def code_lines(training: Training) -> list[str]:
    """Describe image size, codes or latents, and compression ratio."""
    seen, layout = training.data.preprocessing, layout_of(training)
    pixels, kind = prod(seen.shape) * seen.bits, layout.unit
    return [
        f"images   {seen.height}x{seen.width}, {seen.channels} channels, as {training.representation}",
        f"ratio    {pixels / 8:,.0f} bytes of pixels, {layout.bits / 8:,.1f} of {kind}: "
        f"{pixels / layout.bits:.3g} to 1",
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
    return [
        f"batch    {estimate.batch_size} images a step (processes x parts x batch_size: {factors})",
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
