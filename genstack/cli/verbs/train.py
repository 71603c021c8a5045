"""Train a compressor on images, or a prior on a compressor's codes.

genstack train compressor --config configs/compressor/vqgan.yaml --data.source DIR --name flowers
"""

from pathlib import Path

from jsonargparse import Namespace

from genstack.cli.parsing.parser import Parser
from genstack.cli.parsing.stages import STAGES, Stage, build, kept, reopen, say
from genstack.cli.parsing.words import nearest
from genstack.cli.verbs import plan
from genstack.dist import restart_warning
from genstack.errors import UserError
from genstack.training.callbacks.checkpoint import Stopped
from genstack.training.run import Run, Schedule
from genstack.training.training import Training

USAGE = """Train a compressor on images, a prior on a compressor's codes, or continue a run.

  compressor  images -> codes -> images
              $ {command} compressor --config configs/compressor/vqgan.yaml --data.source DIR --name flowers
  prior       a distribution over the codes
              $ {command} prior --compressor runs/flowers --config configs/prior/autoregressive.yaml
  resume      continue a run that was stopped
              $ {command} resume runs/flowers-prior

More:  {command} compressor --help    Recipes:  genstack config list"""


def run(arguments: list[str]) -> int | None:
    """Run `genstack train ...`."""
    known = {"compressor": start, "prior": start, "resume": resume}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE.format(command="genstack train"))
        return None if arguments else 2
    if arguments[0] not in known:
        raise UserError(f"genstack train: {nearest(arguments[0], known, 'thing to train')}")
    return known[arguments[0]](arguments)


def start(arguments: list[str]) -> int | None:
    """Begin the run that a command line describes, or continue it where that has been begun before."""
    stage = STAGES[arguments[0]]
    settings = stage.parser().parse(arguments[1:], stage.inherited(arguments[1:]))
    if settings.dry_run:
        plan.tell(stage, settings)
        return None
    return train(stage, settings)


def resume(arguments: list[str]) -> int | None:
    """Continue a run from its folder alone."""
    parser = Parser(
        "genstack train resume", "Continue a run that was stopped, with the settings it began with."
    )
    parser.add_option("run", str, "folder of the run")
    parser.add_option("devices", int | None, "another number of devices on each node; null as before", None)
    parser.add_option("num_nodes", int | None, "another number of machines; null as before", None)
    given = parser.parse(arguments[1:])
    others = {
        name: number for name in ("devices", "num_nodes") if (number := getattr(given, name)) is not None
    }
    for name, number in others.items():
        if number < 1:
            raise UserError(
                f"genstack train resume: --{name} {number} is out of range; it must be at least 1"
            )
    return train(*reopen(Path(given.run), others), resumed=True)


def train(stage: Stage, settings: Namespace, resumed: bool = False) -> int | None:
    """Train until the end, or until somebody stops it; a run that is resumed has its folder already."""
    folder = Path(settings.runs) / settings.name
    here = Run(folder)
    new = not resumed and here.begin(kept(stage, settings))
    try:
        if not fit(stage, settings, here):
            say(f"{folder} is complete: {here.step()} of {settings.trainer.max_steps} steps are done")
            return None
    except Stopped as stopped:
        say(f"{stopped}; everything is saved. Continue with:  genstack train resume {folder}", error=True)
        return 128 + stopped.number
    except BaseException:
        if new:
            here.withdraw()
        raise
    say(f"{folder} is complete. {stage.next(folder)}")
    return None


def fit(stage: Stage, settings: Namespace, run: Run) -> bool:
    """Build what the settings describe and train it; False where there is nothing left to do."""
    if 0 < settings.trainer.max_steps <= run.step():
        return False
    parts, training = build(stage, settings, run.folder)
    say(restart_warning(), error=True)
    say(describe(training, parts.trainer, run), error=True)
    run.train(training, parts.trainer, parts.log)
    return True


def describe(training: Training, schedule: Schedule, run: Run) -> str:
    """What is about to happen, in a line or two."""
    weights = sum(parameter.numel() for parameter in training.model.parameters())
    height, width = training.data.preprocessing.height, training.data.preprocessing.width
    begun = f"continues at step {run.step()}" if run.step() else "begins"
    return (
        f"{run.folder} {begun}: {type(training.model).__name__}, {weights / 1e6:.3g} M weights; "
        f"images {height}x{width} as {training.becomes}\n"
        f"{training.data.summary()}; "
        f"{schedule.max_steps} steps of {training.data.batch_size} images, "
        f"learning rate {training.optimization.learning_rate:g}"
    )
