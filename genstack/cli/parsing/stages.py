"""The two stages of training: flags, settings, and the objects that the settings describe."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from jsonargparse import Namespace
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from genstack import description, hub, plugins
from genstack.checkpoints.initialize import (
    code_mismatch,
    condition_with_network,
    initialized_compressor,
    initialized_prior,
    load_prior,
)
from genstack.checkpoints.model_file import TENSORS, load
from genstack.cli.commands import training_command
from genstack.cli.next_steps import next_command
from genstack.cli.parsing.layers import Layers
from genstack.cli.parsing.parser import Parser
from genstack.cli.parsing.paths import Place, Trained, check_name, data_settings
from genstack.cli.parsing.sizes import Size, size_settings
from genstack.data import ImageData
from genstack.data.codes.data import open_data
from genstack.data.codes.header import encoded_source, read_header
from genstack.data.source import Source
from genstack.data.sources import is_archive
from genstack.errors import UserError
from genstack.training.compressor import CompressorTraining
from genstack.training.files import CONFIG
from genstack.training.prior import PriorTraining
from genstack.training.run import Run
from genstack.training.training import Training

LOCATION = ("name", "runs", "dry_run", "size")  # flags that config.yaml leaves out


@dataclass(frozen=True)
class CompressorRun:
    """Flags of a compressor's training.

    Args:
        init: run or published file to take initial weights from.
        name: name of the run; its folder is RUNS/NAME.
        runs: folder of all runs.
        dry_run: estimate memory and time as `genstack plan` does, and exit.
        size: preset of widths, depths and learning rates; overrides the recipe, but not other flags.
    """

    init: Trained | None = None
    name: str = "compressor"
    runs: Place = "runs"
    dry_run: bool = False
    size: Size | None = None


@dataclass(frozen=True)
class PriorRun:
    """Flags of a prior's training.

    Args:
        compressor: run or published file of the compressor.
        init: run or published file to take initial weights of the prior from.
        name: name of the run; its folder is RUNS/NAME.
        runs: folder of all runs.
        dry_run: estimate memory and time as `genstack plan` does, and exit.
        size: preset of widths, depths and learning rates; overrides the recipe, but not other flags.
    """

    compressor: Trained
    init: Trained | None = None
    name: str = "prior"
    runs: Place = "runs"
    dry_run: bool = False
    size: Size | None = None


class Stage(ABC):
    """One stage: parse its command line, and build its training."""

    name: str

    @cached_property
    def parser(self) -> Parser:
        """Parser of the stage's settings."""
        return Parser(training_command(self.name))

    def parse(self, arguments: list[str]) -> Namespace:
        """Parse a command line."""
        settings = self.parser.parse(arguments, self.inherited_settings, self.size_flag_settings)
        check_name(settings.name)
        return settings

    def size_flag_settings(self, given: Layers) -> dict[str, Any]:
        """Return the settings of --size; they override files, and flags override them."""
        size = given.get("size")
        return {} if size is None else size_settings(self.parser.command, given, size)

    @abstractmethod
    def inherited_settings(self, given: Layers) -> dict[str, Any]:
        """Return settings of the runs that a command line names; files and flags override them."""

    @abstractmethod
    def training(self, settings: Namespace, parts: Namespace, run: Run) -> Training:
        """Assemble the training from its parts."""

    @abstractmethod
    def next_steps(self, folder: Path) -> str:
        """Describe what to do after the training."""


class CompressorStage(Stage):
    """Stage one."""

    name = "compressor"

    def inherited_settings(self, given: Layers) -> dict[str, Any]:
        """Return the compressor of --init."""
        start = given.get("init")
        if start is None:
            return {}
        described = description.describe(load(Path(start)).compressor)
        del described["channels"]  # set from the data
        return {"model": {"compressor": as_settings(described)}}

    def training(self, settings: Namespace, parts: Namespace, run: Run) -> Training:
        arguments = vars(parts.model)
        if settings.init is not None and run.checkpoint is None:
            arguments["compressor"] = initialized_compressor(arguments["compressor"], Path(settings.init))
        return CompressorTraining(data=parts.data, **arguments)

    def next_steps(self, folder: Path) -> str:
        command = next_command(load(folder), str(folder))
        return f"Look at {folder}/images, then:  {command} --name {folder.name}-prior"


class PriorStage(Stage):
    """Stage two."""

    name = "prior"

    def inherited_settings(self, given: Layers) -> dict[str, Any]:
        """Return the data of the compressor's run, and the prior of --init."""
        return self._initial_prior(given) | self._compressor_data(given)

    def _initial_prior(self, given: Layers) -> dict[str, Any]:
        start = given.get("init")
        if start is None:
            return {}
        described = description.describe(load_prior(Path(start)))
        condition = described.pop("condition")
        del described["layout"]  # set from the compressor
        for late in ("names", "network", "compressor"):  # set from the data, or kept in the run
            condition.pop(late, None)
        return {"model": {"prior": as_settings(described), "condition": as_settings(condition)}}

    def _compressor_data(self, given: Layers) -> dict[str, Any]:
        place = given.get("compressor")
        if place is None or hub.is_hub_name(place):
            return {}
        if not Path(place).exists():
            raise UserError(f"compressor '{place}' not found; expected a run or a published file")
        data = data_settings(Path(place))
        source = given.get("data.source")
        if source is not None and is_archive(Path(source)):
            data.pop("augmentation", None)  # cropping and size were fixed when the images were encoded
            data |= read_header(Path(source)).preprocessing.settings
        return {"data": data} if data else {}

    def training(self, settings: Namespace, parts: Namespace, run: Run) -> Training:
        # Once a run has saved a model, it holds a copy of its compressor.
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
        return (
            f"Look at {folder}/images, then:  genstack sample {folder} --count 64 --out samples/"
            f"{plugins.flags()}"
        )


STAGES: dict[str, Stage] = {stage.name: stage for stage in (CompressorStage(), PriorStage())}


@rank_zero_only
def print_once(text: str, error: bool = False) -> None:
    """Print a line in the process of rank 0."""
    if text:
        print(text, file=sys.stderr if error else sys.stdout)


def as_settings(described: Any) -> Any:
    """Convert the description of a module to the form of a configuration file."""
    if isinstance(described, dict):
        arguments = {name: as_settings(value) for name, value in described.items() if name != "class"}
        return {"class_path": described["class"], "init_args": arguments}
    return [as_settings(item) for item in described] if isinstance(described, list) else described


def build_training(stage: Stage, settings: Namespace, run: Run) -> tuple[Namespace, Training]:
    """Build the parts that the settings describe, and assemble the training."""
    torch.manual_seed(settings.model.seed)  # some parts have weights, and Lightning seeds later
    parts = stage.parser.build(settings)
    return parts, stage.training(settings, parts, run)


def kept_settings(stage: Stage, settings: Namespace) -> dict[str, Any]:
    """Return the settings for config.yaml: all but the location of the run, and its plugins."""
    kept = {key: value for key, value in stage.parser.dump(settings).items() if key not in LOCATION}
    return kept | ({"plugins": records} if (records := plugin_records(kept)) else {})


def plugin_records(kept: dict[str, Any]) -> list[dict[str, str]]:
    """List the plugin files that were named, and the installed plugins that settings need."""
    used = plugins.plugins_defining(plugins.texts(kept)) if plugins.active() else []
    source = kept["data"]["source"]
    kinds = [kind for kind in plugins.classes() if issubclass(kind, Source) and kind.claims(source)]
    used += plugins.plugins_defining(kind.__name__ for kind in kinds)
    return [plugin.record for plugin in plugins.active() if plugin in used or not plugin.installed]


def read_run(run: Run, changes: Mapping[str, int] = MappingProxyType({})) -> tuple[Stage, Namespace]:
    """Read the stage and settings of a run, and write `changes` of the trainer's settings to its folder."""
    config = run.config()
    plugins.require(config.pop("plugins", None), run.folder)
    stage = STAGES["prior" if "compressor" in config else "compressor"]
    settings = stage.parser.parse_saved(config, str(run.folder / CONFIG))
    settings.runs, settings.name = str(run.folder.parent), run.folder.name  # the folder may have been moved
    for name, number in changes.items():
        setattr(settings.trainer, name, number)
    if changes:
        run.write_config(kept_settings(stage, settings))
    return stage, settings


def run_data(folder: Path) -> ImageData:
    """Open the images that a run was trained on; for an archive, the images that it encodes."""
    stage, settings = read_run(Run(folder))
    settings["data.source"] = encoded_source(settings["data.source"])
    return stage.parser.build(settings).data
