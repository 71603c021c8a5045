"""Train a compressor on images, or a prior on a compressor's codes.

genstack train compressor --config vqgan --data.source DIR --name flowers
"""

from dataclasses import dataclass
from pathlib import Path

from jsonargparse import Namespace

from genstack import plugins
from genstack.cli.commands import commands
from genstack.cli.parsing.parser import Parser, to_dataclass
from genstack.cli.parsing.paths import Place
from genstack.cli.parsing.stages import (
    STAGES,
    Stage,
    build_training,
    kept_settings,
    print_once,
    read_run,
)
from genstack.cli.verbs import plan
from genstack.cli.verbs.doctor import check_compiler, compiler_obstacle
from genstack.dist import restart_warning
from genstack.errors import UserError
from genstack.training.callbacks.checkpoint import Stopped
from genstack.training.run import Run, Schedule
from genstack.training.threads import set_threads
from genstack.training.training import Training


@dataclass(frozen=True)
class Resume:
    """Continue a stopped run with its own settings.

    Args:
        run: folder of the run.
        devices: new number of devices per node; null for the same as before.
        num_nodes: new number of machines; null for the same as before.
    """

    run: Place
    devices: int | None = None
    num_nodes: int | None = None

    def __post_init__(self) -> None:
        for name, number in self.changes.items():
            if number < 1:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"genstack train resume: {flag} must be at least 1, got {number}")

    @property
    def changes(self) -> dict[str, int]:
        """Settings of the trainer to change."""
        numbers = {"devices": self.devices, "num_nodes": self.num_nodes}
        return {name: number for name, number in numbers.items() if number is not None}


def run(arguments: list[str]) -> int | None:
    """Run a command line."""
    action, *rest = arguments
    return resume(rest) if action == "resume" else start(STAGES[action], rest)


def start(stage: Stage, arguments: list[str]) -> int | None:
    """Start the run of a command line, or continue it if it exists."""
    settings = stage.parse(arguments)
    if settings.dry_run:
        plan.print_plan(stage, settings)
        return None
    return train(stage, settings, Run(Path(settings.runs) / settings.name))


def resume(arguments: list[str]) -> int | None:
    """Continue a run, given its folder."""
    flags = to_dataclass(Resume, Parser(commands()["train resume"]).parse(arguments))
    run = Run(Path(flags.run))
    stage, settings = read_run(run, flags.changes)
    return train(stage, settings, run, resumed=True)


def train(stage: Stage, settings: Namespace, run: Run, resumed: bool = False) -> int | None:
    """Train to the last step or until a signal, and return the exit code."""
    folder = run.folder
    new = not resumed and run.begin(kept_settings(stage, settings))
    try:
        if not fit(stage, settings, run):
            print_once(f"{folder} is complete: {progress(settings, run)}")
            return None
    except Stopped as stopped:
        command = f"genstack train resume {folder}{plugins.flags()}"
        print_once(f"{stopped}; everything is saved. Continue with:  {command}", error=True)
        return 128 + stopped.number
    except BaseException:
        if new:
            run.withdraw()
        raise
    early = f": {progress(settings, run)}" if run.stopped else ""
    print_once(f"{folder} is complete{early}. {stage.next_steps(folder)}")
    return None


def progress(settings: Namespace, run: Run) -> str:
    """Describe the steps of a complete run."""
    steps = f"{run.step()} of {settings.trainer.max_steps} steps are done"
    return f"{steps}, where a callback stopped it" if run.stopped else steps


def fit(stage: Stage, settings: Namespace, run: Run) -> bool:
    """Build and run the training; return False if all steps are already done."""
    if 0 < settings.trainer.max_steps <= run.step() or run.stopped:
        return False
    if settings.model.compile is True:
        check_compiler("--model.compile")
    parts, training = build_training(stage, settings, run)
    print_once(restart_warning(), error=True)
    threads = set_threads(training, parts.trainer, run)
    lines = [describe(training, parts.trainer, run, threads), *training.data.notices()]
    print_once("\n".join(lines), error=True)
    run.train(training, parts.trainer, parts.log, compiler_obstacle)
    return True


def describe(training: Training, schedule: Schedule, run: Run, threads: str) -> str:
    """Describe model, data and schedule of a training in two lines."""
    weights = sum(parameter.numel() for parameter in training.model.parameters())
    height, width = training.data.preprocessing.height, training.data.preprocessing.width
    state = f"continues at step {run.step()}" if run.step() else "begins"
    return (
        f"{run.folder} {state}: {type(training.model).__name__}, {weights / 1e6:.3g} M weights; "
        f"images {height}x{width} as {training.representation}{threads and '; '}{threads}\n"
        f"{training.data.summary()}; {training.optimization_summary(schedule.max_steps)}"
    )
