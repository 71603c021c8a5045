"""Pictures to make by one command, and the lines that make the same again."""

import hashlib
import json
import shlex
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, final

from genstack.atomic import atomic_path
from genstack.cli.calls import words
from genstack.web.runs import OpenRun

Report = Callable[[float], None]


@dataclass(frozen=True)
class Job(ABC):
    """Pictures to make by one command.

    Args:
        run: the run.
        folder: folder for the pictures; holds the files that the command reads.
        settings: options of the command by name; paths are in the folder.
        places: values of the command that need no name.
    """

    run: OpenRun
    folder: Path
    settings: Mapping[str, Any]
    places: tuple[Path, ...] = ()

    #: Word after `genstack`.
    verb: ClassVar[str]

    @property
    @abstractmethod
    def out(self) -> Path:
        """File or folder that the command writes."""

    @abstractmethod
    def make(self, report: Report) -> Iterator[list[Path]]:
        """Make the pictures; yield the files that exist after each part.

        Args:
            report: called with the progress from 0 to 1; an error that it raises ends the work.
        """

    @property
    @abstractmethod
    def lines(self) -> list[str]:
        """Lines of Python that make the same pictures."""

    @property
    def note(self) -> str:
        """A remark about the pictures; "" for none."""
        return ""

    @final
    def arguments(self) -> list[str]:
        """Words of the command after the verb, with full paths."""
        return [str(self.run.place), *map(str, self.places), *words(self.settings), f"--out={self.out}"]

    @final
    @property
    def command(self) -> str:
        """The command, for the folder in which the archive is unpacked."""
        named = words({name: self.relative(value) for name, value in self.settings.items()})
        given = [self.run.name, *map(self.relative, self.places)]
        options = map(option, [*named, f"--out={self.relative(self.out)}"])
        return " ".join([f"genstack {self.verb}", *map(shlex.quote, given), *options])

    @final
    @property
    def inputs(self) -> list[str]:
        """Files of the archive that the command reads."""
        values = [*self.places, *self.settings.values()]
        return [self.relative(value) for value in values if isinstance(value, Path)]

    @final
    @property
    def python(self) -> str:
        """Lines of Python as one text."""
        return "\n".join(self.lines) + "\n"

    @final
    def relative(self, value: Any) -> Any:
        """A value with paths relative to the folder above."""
        return str(value.relative_to(self.folder.parent)) if isinstance(value, Path) else value

    @final
    def path(self, file: Path) -> str:
        """A path in Python."""
        return f"Path({literal(self.relative(file))})"

    @final
    @property
    def load(self) -> str:
        """The line of Python that loads the model."""
        device = self.run.model.device
        moved = "" if device.type == "cpu" else f".to({literal(str(device))})"
        return f"model = genstack.load({literal(self.run.name)}){moved}"

    @final
    def archive(self) -> Path:
        """Write the folder, the command and the lines of Python into a .zip file."""
        path = self.folder.with_suffix(".zip")
        texts = {"command.sh": self.command + "\n", "again.py": self.python}
        with atomic_path(path) as partial, zipfile.ZipFile(partial, "w") as archive:
            for file in sorted(file for file in self.folder.rglob("*") if file.is_file()):
                archive.write(file, file.relative_to(self.folder.parent))
            for name, text in texts.items():
                archive.writestr(f"{self.folder.name}/{name}", text)
        return path


def option(word: str) -> str:
    """Write `--name=value` as two words where the value allows it, quoted for a shell."""
    name, equals, value = word.partition("=")
    if not equals or not name.startswith("--"):
        return shlex.quote(word)
    return f"{name}={shlex.quote(value)}" if value.startswith("-") else f"{name} {shlex.quote(value)}"


def new_folder(parent: Path, verb: str, *parts: Any) -> Path:
    """A folder in `parent`, named by a verb and a hash of whatever determines its pictures."""
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:8]
    folder = parent / f"{verb}-{digest}"
    folder.mkdir(exist_ok=True)
    folder.touch()  # old ones are removed
    return folder


def constructor(value: Any) -> str:
    """Python that builds a dataclass, without the fields that have their defaults."""
    return f"{type(value).__name__}({', '.join(arguments(value))})"


def arguments(value: Any) -> list[str]:
    """Return Python arguments that build a dataclass; arguments at their defaults are left out."""
    return [
        f"{one.name}={literal(getattr(value, one.name))}"
        for one in fields(value)
        if getattr(value, one.name) != one.default
    ]


def literal(value: Any) -> str:
    """A value in Python, with double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return f"({', '.join(map(literal, value))}{',' * (len(value) == 1)})"
    return repr(value)
