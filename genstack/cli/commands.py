"""Command lines with groups of settings, or with flags of several classes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from genstack.cli.parsing.source import Argument, find

SAMPLING = "genstack.prior.SamplingOptions"
IMAGES = "genstack.data.ImageData"
PATH_SETTINGS = ("source", "condition_images")  # of data: names of built-in sets, or paths


@dataclass(frozen=True)
class Group:
    """Settings of one class, written --PREFIX.NAME.

    Args:
        class_path: full name of the class.
        skip: arguments that genstack sets.
        build: build the object, or only the parts among its settings.
        inherited_from: source of unset options, for the help; "" for their defaults.
        summary: title of the group in the help; "" for the first line of the class's docstring.
    """

    class_path: str
    skip: tuple[str, ...] = ()
    build: bool = True
    inherited_from: str = ""
    summary: str = ""

    def arguments(self) -> dict[str, Argument]:
        found = find(self.class_path).arguments()
        return {name: argument for name, argument in found.items() if name not in self.skip}


@dataclass(frozen=True)
class Command:
    """A command line: flags, and groups of settings.

    Args:
        name: the command, such as `genstack train compressor`.
        flags: full names of functions or classes whose arguments are flags.
        options: full name of a class whose arguments are flags that default to null; "" for none.
        groups: groups of settings, by prefix.
        places: flags that can be given without their name, in order; empty for all flags of a function, and
            for the required ones of a class.
        files: accept --config FILE.
        help: description; by default the docstring of the first of `flags`.
    """

    name: str
    flags: tuple[str, ...]
    options: str = ""
    groups: Mapping[str, Group] = field(default_factory=dict)
    places: tuple[str, ...] = ()
    files: bool = False
    help: str = ""

    @property
    def description(self) -> str:
        """Description before the list of flags."""
        return (self.help or find(self.flags[0]).docstring).partition("\nArgs:")[0].strip()

    def arguments(self) -> dict[str, Argument]:
        """Return the flags by name."""
        found: dict[str, Argument] = {}
        for path in self.flags:
            found |= find(path).arguments()
        return found | (find(self.options).arguments() if self.options else {})

    def paths(self) -> list[str]:
        """List the flags and settings that are paths."""
        flags = self.arguments().items()
        settings = [
            f"{prefix}.{name}"
            for prefix, group in self.groups.items()
            for name in group.arguments()
            if name in PATH_SETTINGS
        ]
        return [name for name, flag in flags if re.search(r"\b(Place|Trained|Path)\b", flag.hint)] + settings

    def models(self) -> list[str]:
        """List the flags that name a trained model."""
        return [name for name, flag in self.arguments().items() if re.search(r"\bTrained\b", flag.hint)]

    def positional(self) -> tuple[str, ...]:
        """List the flags that can be given without their name."""
        if self.places:
            return self.places
        arguments = self.arguments()
        required = tuple(name for name, argument in arguments.items() if argument.default is None)
        return required if find(self.flags[0]).node.name[0].isupper() else tuple(arguments)


def training_command(stage: str, verb: str = "train") -> Command:
    """Return the command line of `train` or `plan` for a stage."""
    compressor = stage == "compressor"
    class_path = f"genstack.training.{stage}.{'CompressorTraining' if compressor else 'PriorTraining'}"
    skip = ("data",) if compressor else ("data", "compressor")
    summary = "Compressor, losses and optimizer." if compressor else "Prior, condition and optimizer."
    return Command(
        f"genstack {verb} {stage}",
        (f"genstack.cli.parsing.stages.{'CompressorRun' if compressor else 'PriorRun'}",),
        groups={
            "data": Group(IMAGES, inherited_from="" if compressor else "the compressor's run"),
            "model": Group(class_path, skip, build=False, summary=summary),
            "trainer": Group("genstack.training.run.Schedule"),
            "log": Group("genstack.training.loggers.Logging"),
        },
        files=True,
        help=find(class_path).docstring,
    )


SAMPLE = Command(
    "genstack sample",
    (
        "genstack.cli.verbs.sample.Request",
        "genstack.cli.parsing.prompts.PromptFlags",
        "genstack.cli.parsing.sampling_options.Preset",
        "genstack.cli.verbs.sample.SearchFlags",
        "genstack.cli.parsing.edit.Edit",
        "genstack.cli.verbs.sample.ComputeFlags",
    ),
    options=SAMPLING,
)
EVALUATE = Command(
    "genstack evaluate",
    ("genstack.cli.verbs.evaluate.Evaluation", "genstack.cli.parsing.sampling_options.Preset"),
    options=SAMPLING,
    groups={"data": Group(IMAGES, inherited_from="the run")},
    places=("run", "generated"),
)
ENCODE = Command(
    "genstack encode",
    ("genstack.cli.verbs.encode.Request",),
    groups={"data": Group(IMAGES, inherited_from="the compressor's run")},
)
IMPORT = Command(
    "genstack import",
    ("genstack.cli.verbs.import.Request", "genstack.checkpoints.import_options.ImportOptions"),
    places=("file", "out"),
)


def commands() -> dict[str, Command]:
    """Return the command lines of this file, by the words after `genstack`."""
    found = [
        training_command("compressor"),
        training_command("prior"),
        Command("genstack train resume", ("genstack.cli.verbs.train.Resume",)),
        Command("genstack plan", ("genstack.cli.verbs.plan.Pictures",)),
        training_command("compressor", "plan"),
        training_command("prior", "plan"),
        SAMPLE,
        EVALUATE,
        ENCODE,
        IMPORT,
    ]
    return {command.name.removeprefix("genstack "): command for command in found}
