"""Say what a training would take, and write nothing.

genstack plan compressor --config configs/compressor/vqgan.yaml --data.source DIR
"""

from math import log2, prod

from jsonargparse import Namespace

from genstack.cli.parsing.stages import STAGES, Stage, build
from genstack.cli.parsing.words import nearest
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.losses.schedule import steps
from genstack.training.estimate import STEPS, Forecast, Memory
from genstack.training.training import Training

USAGE = """Say what a training would take, and write nothing: weights, codes, memory, batch, steps and time.

  genstack plan compressor ...
  genstack plan prior ...

takes what `genstack train` takes, and does some steps to find out. So does `genstack train ... --dry-run`."""


def run(arguments: list[str]) -> int | None:
    """The verb."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return None if arguments else 2
    if arguments[0] not in STAGES:
        raise UserError(f"genstack plan: {nearest(arguments[0], STAGES, 'thing to train')}")
    stage = STAGES[arguments[0]]
    tell(stage, stage.parser().parse(arguments[1:], stage.inherited(arguments[1:])))
    return None


def tell(stage: Stage, settings: Namespace) -> None:
    """Print what the training that the settings describe would take."""
    parts, training = build(stage, settings)
    forecast = Forecast(training, parts.trainer)
    print("\n".join([weights(training), *codes(training), *batch(forecast)]), flush=True)
    memory = forecast.memory()
    print(room(memory), flush=True)
    if memory.fits:
        print(duration(forecast))
    print("nothing was written")


def weights(training: Training) -> str:
    """What learns, and how large it is."""
    total = sum(parameter.numel() for parameter in training.model.parameters())
    return f"model    {type(training.model).__name__}, {total / 1e6:.4g} M weights"


def codes(training: Training) -> list[str]:
    """What an image becomes, and how much smaller that is."""
    seen, layout = training.data.preprocessing, layout_of(training)
    head = f"images   {seen.height}x{seen.width}, {seen.channels} channels, as {training.becomes}"
    if layout is None:
        return [head]
    pixels, coded = prod(seen.shape) * seen.bits, layout.length * log2(layout.codebook_size)
    return [
        head,
        f"ratio    {pixels / 8:,.0f} bytes of pixels, {coded / 8:,.1f} of codes: {pixels / coded:.3g} to 1",
    ]


def layout_of(training: Training) -> CodeLayout | None:
    """Where the codes lie; None without codes."""
    layout = getattr(training, "layout", None)
    if layout is not None:
        return layout
    size = (training.data.preprocessing.height, training.data.preprocessing.width)
    return training.model.layout(*size) if training.model.coded else None


def batch(forecast: Forecast) -> list[str]:
    """What one step takes in, and how far it goes."""
    schedule, how = forecast.schedule, forecast.training.optimization
    warmup = steps(how.warmup, schedule.max_steps)
    factors = f"{forecast.processes} x {schedule.accumulate_grad_batches} x {forecast.micro_batch}"
    return [
        f"batch    {forecast.batch_size} images a step (processes x parts x batch_size: {factors})",
        f"rate     {how.learning_rate:g} after {warmup} steps of warm-up, "
        f"{how.final * how.learning_rate:g} at the end",
    ]


def room(memory: Memory) -> str:
    """Whether it fits."""
    told = (
        f"memory   about {memory.needed / 1e9:.2f} GB of the {memory.there / 1e9:.2f} GB of {memory.device}"
    )
    if memory.fits:
        return f"{told}: it fits"
    return (
        f"{told}: it does not fit; raise trainer.accumulate_grad_batches, or lower data.batch_size, "
        f"data.resolution or the width of the network"
    )


def duration(forecast: Forecast) -> str:
    """How long it takes."""
    each, count = forecast.seconds(), forecast.schedule.max_steps
    return (
        f"time     {count} steps of {each:.3g} s: {words(each * count)}, without validation "
        f"(from {STEPS} steps in this process alone)"
    )


def words(seconds: float) -> str:
    """A time as people say it."""
    for name, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {name}"
    return f"{seconds:.0f} seconds"
