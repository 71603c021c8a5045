"""Train a compressor on images, or a prior on a compressor's codes.

genstack train compressor --config configs/compressor/vqgan.yaml --data.source DIR --name flowers
"""

import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from jsonargparse import Namespace
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import nn

from genstack.checkpoints import description, hub
from genstack.checkpoints.files import TENSORS, load
from genstack.cli.parser import Parser
from genstack.cli.words import nearest
from genstack.codes.data import codes_or_images
from genstack.codes.header import is_archive, seen
from genstack.compressor import Compressor
from genstack.data import ImageData
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior import Condition, Prior
from genstack.training.compressor import CompressorTraining
from genstack.training.keeper import Stopped
from genstack.training.loggers import Logging
from genstack.training.prior import PriorTraining
from genstack.training.run import CONFIG, Run, Schedule
from genstack.training.training import Training

Part = TypeVar("Part", bound=nn.Module)

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
        from genstack.cli.plan import tell  # which stands on this file

        tell(stage, settings)
        return None
    return train(stage, settings)


def resume(arguments: list[str]) -> int | None:
    """Continue a run from its folder alone."""
    parser = Parser(
        "genstack train resume", "Continue a run that was stopped, with the settings it began with."
    )
    parser.add_option("run", str, "folder of the run")
    folder = Path(parser.parse(arguments[1:]).run)
    return train(*reopen(folder))


def reopen(folder: Path) -> tuple["Stage", Namespace]:
    """The stage and settings of a run, from its folder."""
    config = Run(folder).config()
    stage = STAGES["prior" if "compressor" in config else "compressor"]
    settings = stage.parser().reread(config, str(folder / CONFIG))
    settings.runs, settings.name = str(folder.parent), folder.name  # the folder may have been moved
    return stage, settings


def data_of(folder: Path) -> ImageData:
    """The images that a run was trained on."""
    stage, settings = reopen(folder)
    return stage.parser().build(settings).data


def train(stage: "Stage", settings: Namespace) -> int | None:
    """Train until the end, or until somebody stops it."""
    folder = Path(settings.runs) / settings.name
    here = Run(folder)
    resolved = stage.parser().resolved(settings)
    new = here.begin(
        {key: value for key, value in resolved.items() if key not in ("name", "runs", "dry_run")}
    )
    try:
        if not fit(stage, settings, here):
            say(f"{folder} is complete: {here.step()} of {settings.trainer.max_steps} steps are done")
            return None
    except Stopped as stopped:
        say(f"{stopped}; everything is saved. Continue with:  python train.py resume {folder}", error=True)
        return 128 + stopped.number
    except BaseException:
        if new:
            here.withdraw()
        raise
    say(f"{folder} is complete. {stage.next(folder)}")
    return None


def fit(stage: "Stage", settings: Namespace, run: Run) -> bool:
    """Build what the settings describe and train it; False where there is nothing left to do."""
    if 0 < settings.trainer.max_steps <= run.step():
        return False
    parts, training = build(stage, settings, run.folder)
    say(describe(training, parts.trainer, run), error=True)
    run.train(training, parts.trainer, parts.log)
    return True


def build(stage: "Stage", settings: Namespace, folder: Path = Path()) -> tuple[Namespace, Training]:
    """The parts that settings describe, and the training made of them."""
    torch.manual_seed(settings.model.seed)  # parts with weights are made before the training seeds itself
    parts = stage.parser().build(settings)
    return parts, stage.training(settings, parts, folder)


@rank_zero_only
def say(text: str, error: bool = False) -> None:
    """Print once, however many processes train."""
    print(text, file=sys.stderr if error else sys.stdout)


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


class Stage(ABC):
    """One of the two things to train: its command line, and how its training is made from it."""

    name: str
    kind: type[Training]
    late: frozenset[str]  # arguments of the training that do not come from `--model`

    def parser(self) -> Parser:
        """The command line."""
        parser = Parser(f"genstack train {self.name}", inspect.getdoc(self.kind) or "", files=True)
        self.add_options(parser)
        parser.add_option("name", str, "name of the run, which fills the folder RUNS/NAME", self.name)
        parser.add_option("runs", str, "folder of all runs", "runs")
        parser.add_option("dry_run", bool, "only say what it would take, as `genstack plan` does", False)
        parser.add_class(ImageData, "data")
        parser.add_class(self.kind, "model", skip=self.late, build=False)
        parser.add_class(Schedule, "trainer")
        parser.add_class(Logging, "log")
        return parser

    @abstractmethod
    def add_options(self, parser: Parser) -> None:
        """What this stage needs beside its training."""

    def inherited(self, arguments: list[str]) -> dict[str, Any]:
        """Settings from elsewhere, under those of files and flags."""
        return {}

    @abstractmethod
    def training(self, settings: Namespace, parts: Namespace, folder: Path) -> Training:
        """The training that settings and the parts built from them describe."""

    @abstractmethod
    def next(self, folder: Path) -> str:
        """What a user does next."""


class CompressorStage(Stage):
    """Stage one."""

    name, kind, late = "compressor", CompressorTraining, frozenset({"data"})

    def add_options(self, parser: Parser) -> None:
        parser.add_option("init", str | None, "run or published file whose weights it begins with", None)

    def inherited(self, arguments: list[str]) -> dict[str, Any]:
        """The compressor that the run begins with, unless something else is said."""
        found = Parser("genstack train compressor", files=True).peek(arguments, "init")
        if found is None:
            return {}
        described = description.describe(load(Path(found)).compressor)
        del described["channels"]  # as many as the data has
        return {"model": {"compressor": written(described)}}

    def training(self, settings: Namespace, parts: Namespace, folder: Path) -> Training:
        given = vars(parts.model)
        if settings.init is not None and Run(folder).checkpoint is None:
            given["compressor"] = begun(given["compressor"], Path(settings.init))
        return CompressorTraining(data=parts.data, **given)

    def next(self, folder: Path) -> str:
        command = f"python train.py prior --compressor {folder} --config configs/prior/autoregressive.yaml"
        return f"Look at {folder}/images, then:  {command} --name {folder.name}-prior"


class PriorStage(Stage):
    """Stage two."""

    name, kind, late = "prior", PriorTraining, frozenset({"data", "compressor"})

    def add_options(self, parser: Parser) -> None:
        parser.add_option("compressor", str, "run or published file of the compressor")
        parser.add_option("init", str | None, "run whose prior's weights it begins with", None)

    def inherited(self, arguments: list[str]) -> dict[str, Any]:
        """The data of the compressor's run, and the prior to begin with, unless something else is said."""
        return self.beginning(arguments) | self.images(arguments)

    def beginning(self, arguments: list[str]) -> dict[str, Any]:
        """The prior of another run."""
        found = Parser("genstack train prior", files=True).peek(arguments, "init")
        if found is None:
            return {}
        described = description.describe(prior_of(Path(found)))
        condition = described.pop("condition")
        del described["layout"]  # the compressor's
        condition.pop("names", None)  # the data's
        return {"model": {"prior": written(described), "condition": written(condition)}}

    def images(self, arguments: list[str]) -> dict[str, Any]:
        """The data of the compressor's run."""
        found = Parser("genstack train prior", files=True).peek(arguments, "compressor")
        if found is None or hub.named(found):
            return {}
        if not Path(found).exists():
            raise UserError(f"genstack train prior: {found} is no folder or file; name a compressor's run")
        data = Run(Path(found)).config()["data"] if (Path(found) / CONFIG).exists() else {}
        source = Parser("genstack train prior", files=True).peek(arguments, "data.source")
        if source is not None and is_archive(Path(source).expanduser()):
            data.pop("augmentation", None)  # done when they were encoded, as is the size
            data |= seen(Path(source))
        return {"data": data} if data else {}

    def training(self, settings: Namespace, parts: Namespace, folder: Path) -> Training:
        model = compressor(settings.compressor, folder)
        given = vars(parts.model)
        if settings.init is not None and Run(folder).checkpoint is None:
            given["prior"] = begun_prior(given["prior"], Path(settings.init), model)
        return PriorTraining(compressor=model, data=codes_or_images(parts.data, model), **given)

    def next(self, folder: Path) -> str:
        return f"Look at {folder}/images, then:  python sample.py {folder} --count 64 --out samples/"


STAGES: dict[str, Stage] = {stage.name: stage for stage in (CompressorStage(), PriorStage())}


def begun(make: Callable[[int], Compressor], place: Path) -> Callable[[int], Compressor]:
    """What makes a compressor with the weights of another; every one of them must fit."""
    before = load(place).compressor

    def made(channels: int) -> Compressor:
        return filled(make(channels), before, place)

    return made


def begun_prior(
    make: Callable[[CodeLayout, Condition], Prior], place: Path, model: Model
) -> Callable[[CodeLayout, Condition], Prior]:
    """What makes a prior over a model's codes with the weights of another; every one of them must fit."""
    before = prior_of(place)

    def made(layout: CodeLayout, condition: Condition) -> Prior:
        prior = make(layout, condition)
        prior.attach(model.compressor)
        return filled(prior, before, place)

    return made


def prior_of(place: Path) -> Prior:
    """The prior of a run."""
    prior = load(place).prior
    if prior is None:
        raise UserError(f"{place} has no prior; name a run of `train prior`, or leave out --init")
    return prior


def filled(part: Part, before: nn.Module, place: Path) -> Part:
    """A part with the weights of another one like it."""
    expected, given = part.state_dict(), before.state_dict()
    wrong = sorted(expected.keys() ^ given.keys())
    wrong += [name for name in expected if name in given and expected[name].shape != given[name].shape]
    if wrong:
        raise UserError(
            f"the weights of {place} do not fit this {type(part).__name__}: {', '.join(wrong[:5])}"
        )
    part.load_state_dict(given)
    return part


def written(described: Any) -> Any:
    """A part's description as settings write it."""
    if isinstance(described, dict):
        inner = {name: written(value) for name, value in described.items() if name != "class"}
        return {"class_path": described["class"], "init_args": inner}
    return [written(item) for item in described] if isinstance(described, list) else described


def compressor(place: str, folder: Path) -> Model:
    """The compressor of a prior's run: its own copy once it has one, the one that was named before that."""
    return load(folder if (folder / TENSORS).exists() else Path(place))
