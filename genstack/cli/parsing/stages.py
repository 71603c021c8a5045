"""The two things to train: their command lines, and the trainings that settings describe."""

import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from jsonargparse import Namespace
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from genstack import description, hub
from genstack.checkpoints.initialize import begun, begun_prior, other_codes, prior_of, reading
from genstack.checkpoints.model_file import TENSORS, load
from genstack.cli.next_steps import next_command
from genstack.cli.parsing.parser import Parser
from genstack.cli.parsing.place import images_of
from genstack.data import ImageData
from genstack.data.codes.data import codes_or_images
from genstack.data.codes.header import header_in
from genstack.data.sources import is_archive
from genstack.errors import UserError
from genstack.model import Model
from genstack.training.compressor import CompressorTraining
from genstack.training.loggers import Logging
from genstack.training.prior import PriorTraining
from genstack.training.run import CONFIG, Run, Schedule
from genstack.training.training import Training


class Stage(ABC):
    """One of the two things to train: its command line, and how its training is made from it."""

    name: str
    kind: type[Training]
    late: frozenset[str]  # arguments of the training that do not come from `--model`
    otherwise = ""  # where settings of the data come from that nobody sets

    def parser(self) -> Parser:
        """The command line."""
        parser = Parser(f"genstack train {self.name}", inspect.getdoc(self.kind) or "", files=True)
        self.add_options(parser)
        parser.add_option("name", str, "name of the run, which fills the folder RUNS/NAME", self.name)
        parser.add_option("runs", str, "folder of all runs", "runs")
        parser.add_option("dry_run", bool, "only say what it would take, as `genstack plan` does", False)
        parser.add_class(ImageData, "data", otherwise=self.otherwise)
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
        model = load(folder)
        name = f" --name {folder.name}-prior" if model.compressor.coded else ""
        return f"Look at {folder}/images, then:  {next_command(model, str(folder))}{name}"


class PriorStage(Stage):
    """Stage two."""

    name, kind, late = "prior", PriorTraining, frozenset({"data", "compressor"})
    otherwise = "the compressor's run"

    def add_options(self, parser: Parser) -> None:
        parser.add_option("compressor", str, "run or published file of the compressor")
        parser.add_option(
            "init", str | None, "run or published file whose prior's weights it begins with", None
        )

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
        for late in ("names", "network"):  # the data's, and what is no setting
            condition.pop(late, None)
        return {"model": {"prior": written(described), "condition": written(condition)}}

    def images(self, arguments: list[str]) -> dict[str, Any]:
        """The data of the compressor's run."""
        found = Parser("genstack train prior", files=True).peek(arguments, "compressor")
        if found is None or hub.named(found):
            return {}
        if not Path(found).exists():
            raise UserError(f"genstack train prior: {found} is no folder or file; name a compressor's run")
        data = images_of(Path(found))
        source = Parser("genstack train prior", files=True).peek(arguments, "data.source")
        if source is not None and is_archive(Path(source)):
            data.pop("augmentation", None)  # done when they were encoded, as is the size
            data |= header_in(Path(source)).preprocessing.settings
        return {"data": data} if data else {}

    def training(self, settings: Namespace, parts: Namespace, folder: Path) -> Training:
        model = compressor(settings.compressor, folder)
        given, data = vars(parts.model), codes_or_images(parts.data, model)
        given["condition"] = reading(given["condition"], data, folder, settings.init)
        if settings.init is not None and Run(folder).checkpoint is None:
            say(other_codes(Path(settings.init), model), error=True)
            given["prior"] = begun_prior(given["prior"], Path(settings.init), model)
        return PriorTraining(compressor=model, data=data, **given)

    def next(self, folder: Path) -> str:
        return f"Look at {folder}/images, then:  genstack sample {folder} --count 64 --out samples/"


STAGES: dict[str, Stage] = {stage.name: stage for stage in (CompressorStage(), PriorStage())}


@rank_zero_only
def say(text: str, error: bool = False) -> None:
    """Print what there is to say, once, however many processes train."""
    if text:
        print(text, file=sys.stderr if error else sys.stdout)


def written(described: Any) -> Any:
    """A part's description as settings write it."""
    if isinstance(described, dict):
        inner = {name: written(value) for name, value in described.items() if name != "class"}
        return {"class_path": described["class"], "init_args": inner}
    return [written(item) for item in described] if isinstance(described, list) else described


def compressor(place: str, folder: Path) -> Model:
    """The compressor of a prior's run: its own copy once it has one, the one that was named before that."""
    return load(folder if (folder / TENSORS).exists() else Path(place))


def build(stage: "Stage", settings: Namespace, folder: Path = Path()) -> tuple[Namespace, Training]:
    """The parts that settings describe, and the training made of them."""
    torch.manual_seed(settings.model.seed)  # parts with weights are made before the training seeds itself
    parts = stage.parser().build(settings)
    return parts, stage.training(settings, parts, folder)


def kept(stage: Stage, settings: Namespace) -> dict[str, Any]:
    """The settings that a run folder keeps: all but those that say where it lies."""
    resolved = stage.parser().resolved(settings)
    return {key: value for key, value in resolved.items() if key not in ("name", "runs", "dry_run")}


def reopen(folder: Path, others: Mapping[str, int] = MappingProxyType({})) -> tuple["Stage", Namespace]:
    """The stage and settings of a run, from its folder; `others` of its trainer's are kept there."""
    config = Run(folder).config()
    stage = STAGES["prior" if "compressor" in config else "compressor"]
    settings = stage.parser().reread(config, str(folder / CONFIG))
    settings.runs, settings.name = str(folder.parent), folder.name  # the folder may have been moved
    for name, number in others.items():
        setattr(settings.trainer, name, number)
    if others:
        Run(folder).claim(kept(stage, settings))
    return stage, settings


def data_of(folder: Path) -> ImageData:
    """The images that a run was trained on."""
    stage, settings = reopen(folder)
    return stage.parser().build(settings).data
