"""The verbs of `genstack`: one file each, found by the command that the file's docstring shows.

A verb file opens with what it does and how it is called:

    \"\"\"Check a folder of images before training.

        genstack data check DIR
    \"\"\"

and holds either `run(arguments: list[str]) -> int | None`, which reads its own command line (see
`parser.Parser`), or plain functions. Of these, one named like the file is the verb itself, and any others are
its actions (`data.check` is `genstack data check`; a name that Python keeps ends in an underscore: `list_`).
What a function returns is the exit code.
"""

import ast
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from genstack.cli.parsing.words import nearest
from genstack.errors import UserError


@dataclass(frozen=True)
class Verb:
    """What a verb file says of itself, read without running it, so that `genstack` answers at once."""

    name: str
    summary: str
    example: str

    def run(self, arguments: list[str]) -> int | None:
        """Run the verb with what stands behind its name on the command line."""
        module = importlib.import_module(f"genstack.cli.verbs.{self.name}")
        if hasattr(module, "run"):
            return module.run(arguments)
        actions = {
            name.removesuffix("_"): member
            for name, member in inspect.getmembers(module, inspect.isfunction)
            if member.__module__ == module.__name__ and not name.startswith("_")
        }
        if self.name in actions:
            return call(actions[self.name], f"genstack {self.name}", arguments)
        if not arguments or arguments[0] in ("-h", "--help"):
            print(usage(self, actions))
            return None if arguments else 2
        if arguments[0] not in actions:
            raise UserError(f"genstack {self.name}: {nearest(arguments[0], actions, 'action')}")
        return call(actions[arguments[0]], f"genstack {self.name} {arguments[0]}", arguments[1:])


@cache
def verbs() -> Mapping[str, Verb]:
    """Every verb by name, read once by each process."""
    found = {
        verb.name: verb
        for file in sorted((Path(__file__).parent / "verbs").glob("*.py"))
        if (verb := read(file))
    }
    return MappingProxyType(found)


def read(file: Path) -> Verb | None:
    """The verb of a file; None for a file whose docstring shows no command `genstack <file name>`."""
    lines = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").splitlines()
    commands = [line.strip() for line in lines if line.strip().startswith(f"genstack {file.stem}")]
    return Verb(file.stem, lines[0].rstrip("."), commands[0]) if commands else None


def usage(verb: Verb, actions: Mapping[str, Callable]) -> str:
    """The actions of a verb, one a line."""
    width = max(map(len, actions))
    lines = [
        f"  {name:{width}}  {(inspect.getdoc(action) or '').partition(chr(10))[0].rstrip('.')}"
        for name, action in actions.items()
    ]
    return "\n".join(
        [
            f"{verb.summary}\n",
            *lines,
            f"\nFor example:  {verb.example}",
            f"More:  genstack {verb.name} ACTION --help",
        ]
    )


def call(function: Callable, command: str, arguments: list[str]) -> int | None:
    """Call a function with arguments from the command line; those without a default are positional."""
    from genstack.cli.parsing.parser import (
        Parser,
    )  # loads every part of genstack, and the overview needs none

    parser = Parser(command, inspect.getdoc(function) or "")
    parser.add_function(function)
    return function(**parser.parse(arguments).as_dict())
