"""The command lines that have more than the flags of one function."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from genstack.cli.parsing.source import Argument, find

SAMPLING = "genstack.prior.SamplingOptions"
IMAGES = "genstack.data.ImageData"


@dataclass(frozen=True)
class Group:
    """Settings of one class, written --PREFIX.NAME.

    Args:
        kind: full name of the class.
        skip: arguments that the program gives.
        build: make the object, or leave its settings with the parts in them made.
        otherwise: source of settings that nobody gives, for the help; "" for their defaults.
    """

    kind: str
    skip: tuple[str, ...] = ()
    build: bool = True
    otherwise: str = ""

    def arguments(self) -> dict[str, Argument]:
        found = find(self.kind).arguments()
        return {name: argument for name, argument in found.items() if name not in self.skip}


@dataclass(frozen=True)
class Command:
    """A command line: flags, and groups of settings.

    Args:
        name: words that call it, such as `genstack train compressor`.
        flags: full names of functions or classes whose arguments are flags.
        options: full name of a class whose arguments are flags, null unless given; "" for none.
        groups: classes whose arguments are settings, by prefix.
        places: flags that can be given without their name, in order; "" for all of a function's, and for what
            a class requires.
        files: whether --config FILE is read.
        help: what it does; the docstring of the first of `flags` if empty.
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
        """Help before the list of flags."""
        return (self.help or find(self.flags[0]).docstring).partition("\nArgs:")[0].strip()

    def arguments(self) -> dict[str, Argument]:
        """Flags by name."""
        found: dict[str, Argument] = {}
        for path in self.flags:
            found |= find(path).arguments()
        return found | (find(self.options).arguments() if self.options else {})

    def paths(self) -> list[str]:
        """Flags and settings that are paths."""
        flags = self.arguments().items()
        sources = [
            f"{prefix}.source" for prefix, group in self.groups.items() if "source" in group.arguments()
        ]
        return [name for name, flag in flags if re.search(r"\b(Place|Path)\b", flag.hint)] + sources

    def positional(self) -> tuple[str, ...]:
        """Flags that can be given without their name."""
        if self.places:
            return self.places
        arguments = self.arguments()
        required = tuple(name for name, argument in arguments.items() if argument.default is None)
        return required if find(self.flags[0]).node.name[0].isupper() else tuple(arguments)


def training(stage: str, verb: str = "train") -> Command:
    """The command line of a training, for `train` and `plan` alike."""
    compressor = stage == "compressor"
    kind = "CompressorTraining" if compressor else "PriorTraining"
    home = f"genstack.training.{stage}.{kind}"
    skip = ("data",) if compressor else ("data", "compressor")
    return Command(
        f"genstack {verb} {stage}",
        (f"genstack.cli.parsing.run_flags.{'CompressorRun' if compressor else 'PriorRun'}",),
        groups={
            "data": Group(IMAGES, otherwise="" if compressor else "the compressor's run"),
            "model": Group(home, skip, build=False),
            "trainer": Group("genstack.training.run.Schedule"),
            "log": Group("genstack.training.loggers.Logging"),
        },
        files=True,
        help=find(home).docstring,
    )


SAMPLE = Command(
    "genstack sample",
    (
        "genstack.cli.verbs.sample.Request",
        "genstack.cli.parsing.prompts.PromptFlags",
        "genstack.cli.parsing.options.Preset",
        "genstack.cli.verbs.sample.Search",
        "genstack.cli.parsing.edit.Edit",
        "genstack.cli.verbs.sample.Work",
    ),
    options=SAMPLING,
)
EVALUATE = Command(
    "genstack evaluate",
    ("genstack.cli.verbs.evaluate.Evaluation", "genstack.cli.parsing.options.Preset"),
    options=SAMPLING,
    groups={"data": Group(IMAGES, otherwise="the run")},
    places=("run", "generated"),
)
ENCODE = Command(
    "genstack encode",
    ("genstack.cli.verbs.encode.Request",),
    groups={"data": Group(IMAGES, otherwise="the compressor's run")},
)
IMPORT = Command(
    "genstack import",
    ("genstack.cli.verbs.import.Request", "genstack.checkpoints.import_options.ImportOptions"),
    places=("file", "out"),
)


def commands() -> dict[str, Command]:
    """Every command line of this file, by the words after `genstack`."""
    found = [
        training("compressor"),
        training("prior"),
        Command("genstack train resume", ("genstack.cli.verbs.train.Resume",)),
        training("compressor", "plan"),
        training("prior", "plan"),
        SAMPLE,
        EVALUATE,
        ENCODE,
        IMPORT,
    ]
    return {command.name.removeprefix("genstack "): command for command in found}
