"""The two trainings: their settings, and the objects that settings describe."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from jsonargparse import Namespace
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from genstack import description, hub
from genstack.checkpoints.initialize import (
    code_mismatch,
    condition_with_network,
    initialized_compressor,
    initialized_prior,
    load_prior,
)
from genstack.checkpoints.model_file import TENSORS, load
from genstack.cli.commands import training
from genstack.cli.next_steps import next_command
from genstack.cli.parsing.layers import Layers
from genstack.cli.parsing.parser import Parser
from genstack.cli.parsing.paths import check_name
from genstack.cli.parsing.run_files import data_settings
from genstack.data import ImageData
from genstack.data.codes.data import open_data
from genstack.data.codes.header import read_header
from genstack.data.sources import is_archive
from genstack.errors import UserError
from genstack.training.compressor import CompressorTraining
from genstack.training.prior import PriorTraining
from genstack.training.run import CONFIG, Run
from genstack.training.training import Training

LOCATION = ("name", "runs", "dry_run")  # settings that a run folder does not keep


class Stage(ABC):
    """One of the two trainings: its command line, and the training that settings describe."""

    name: str

    @cached_property
    def parser(self) -> Parser:
        """The settings of this training."""
        return Parser(training(self.name))

    def parse(self, arguments: list[str]) -> Namespace:
        """The settings of a command line."""
        settings = self.parser.parse(arguments, self.inherited)
        check_name(settings.name)
        return settings

    @abstractmethod
    def inherited(self, given: Layers) -> dict[str, Any]:
        """Settings of the runs that a command line names; files and flags override them."""

    @abstractmethod
    def training(self, settings: Namespace, parts: Namespace, run: Run) -> Training:
        """The training, made of the parts that the settings describe."""

    @abstractmethod
    def next_steps(self, folder: Path) -> str:
        """Commands that follow a finished training."""


class CompressorStage(Stage):
    """Stage one."""

    name = "compressor"

    def inherited(self, given: Layers) -> dict[str, Any]:
        """The compressor of --init."""
        start = given.get("init")
        if start is None:
            return {}
        described = description.describe(load(Path(start)).compressor)
        del described["channels"]  # as many as the data has
        return {"model": {"compressor": as_settings(described)}}

    def training(self, settings: Namespace, parts: Namespace, run: Run) -> Training:
        arguments = vars(parts.model)
        if settings.init is not None and run.checkpoint is None:
            arguments["compressor"] = initialized_compressor(arguments["compressor"], Path(settings.init))
        return CompressorTraining(data=parts.data, **arguments)

    def next_steps(self, folder: Path) -> str:
        model = load(folder)
        name = f" --name {folder.name}-prior" if model.compressor.coded else ""
        return f"Look at {folder}/images, then:  {next_command(model, str(folder))}{name}"


class PriorStage(Stage):
    """Stage two."""

    name = "prior"

    def inherited(self, given: Layers) -> dict[str, Any]:
        """The data of the compressor's run, and the prior of --init."""
        return self._prior(given) | self._data(given)

    def _prior(self, given: Layers) -> dict[str, Any]:
        start = given.get("init")
        if start is None:
            return {}
        described = description.describe(load_prior(Path(start)))
        condition = described.pop("condition")
        del described["layout"]  # the compressor's
        for late in ("names", "network"):  # the data's, and no setting
            condition.pop(late, None)
        return {"model": {"prior": as_settings(described), "condition": as_settings(condition)}}

    def _data(self, given: Layers) -> dict[str, Any]:
        place = given.get("compressor")
        if place is None or hub.named(place):
            return {}
        if not Path(place).exists():
            raise UserError(f"compressor '{place}' not found; name the run or file of a compressor")
        data = data_settings(Path(place))
        source = given.get("data.source")
        if source is not None and is_archive(Path(source)):
            data.pop("augmentation", None)  # done when the images were encoded, as is the size
            data |= read_header(Path(source)).preprocessing.settings
        return {"data": data} if data else {}

    def training(self, settings: Namespace, parts: Namespace, run: Run) -> Training:
        # A run has a copy of its compressor as soon as it has a model.
        place = run.folder if (run.folder / TENSORS).exists() else Path(settings.compressor)
        model = load(place)
        arguments, data = vars(parts.model), open_data(parts.data, model)
        arguments["condition"] = condition_with_network(
            arguments["condition"], data, run.folder, settings.init
        )
        if settings.init is not None and run.checkpoint is None:
            print_once(code_mismatch(Path(settings.init), model), error=True)
            arguments["prior"] = initialized_prior(
                arguments["prior"], Path(settings.init), model, partial(print_once, error=True)
            )
        return PriorTraining(compressor=model, data=data, **arguments)

    def next_steps(self, folder: Path) -> str:
        return f"Look at {folder}/images, then:  genstack sample {folder} --count 64 --out samples/"


STAGES: dict[str, Stage] = {stage.name: stage for stage in (CompressorStage(), PriorStage())}


@rank_zero_only
def print_once(text: str, error: bool = False) -> None:
    """Print a line in the first of several processes."""
    if text:
        print(text, file=sys.stderr if error else sys.stdout)


def as_settings(described: Any) -> Any:
    """A description of a part in the form of a configuration file."""
    if isinstance(described, dict):
        arguments = {name: as_settings(value) for name, value in described.items() if name != "class"}
        return {"class_path": described["class"], "init_args": arguments}
    return [as_settings(item) for item in described] if isinstance(described, list) else described


def build_training(stage: Stage, settings: Namespace, run: Run) -> tuple[Namespace, Training]:
    """The parts that settings describe, and the training made of them."""
    torch.manual_seed(settings.model.seed)  # parts with weights are made before the training seeds itself
    parts = stage.parser.build(settings)
    return parts, stage.training(settings, parts, run)


def kept_settings(stage: Stage, settings: Namespace) -> dict[str, Any]:
    """The settings that a run folder keeps: all but its location."""
    return {key: value for key, value in stage.parser.resolved(settings).items() if key not in LOCATION}


def read_run(run: Run, changes: Mapping[str, int] = MappingProxyType({})) -> tuple[Stage, Namespace]:
    """The stage and settings of a run; `changes` of the trainer's settings are written to its folder."""
    config = run.config()
    stage = STAGES["prior" if "compressor" in config else "compressor"]
    settings = stage.parser.reread(config, str(run.folder / CONFIG))
    settings.runs, settings.name = str(run.folder.parent), run.folder.name  # the folder may have been moved
    for name, number in changes.items():
        setattr(settings.trainer, name, number)
    if changes:
        run.claim(kept_settings(stage, settings))
    return stage, settings


def run_data(folder: Path) -> ImageData:
    """The images that a run was trained on."""
    stage, settings = read_run(Run(folder))
    return stage.parser.build(settings).data
