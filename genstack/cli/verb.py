"""Verbs of `genstack`: one file each, found by the command in the docstring of the file.

The docstring of a verb file says what it does, and shows a command:

    \"\"\"Check a folder of images before training.

        genstack data check DIR
    \"\"\"

Command lines that `commands.py` lists are run by the file's `run(arguments: list[str]) -> int | None`. Other
files hold plain functions: the one named like the file is the verb, and others are its actions. `check` in
`data.py` is `genstack data check`; a reserved word ends in an underscore, as `list_` does. Functions return
the exit code. Help is read from the source; only the verb that runs is imported.
"""

import ast
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from genstack.cli.commands import Command, commands
from genstack.cli.parsing.help import command_help, part_help
from genstack.cli.parsing.source import tree
from genstack.cli.parsing.words import unknown
from genstack.errors import UserError


@dataclass(frozen=True)
class Verb:
    """A verb, from the source of its file."""

    name: str
    summary: str
    example: str

    @property
    def module(self) -> str:
        return f"genstack.cli.verbs.{self.name}"

    def actions(self) -> dict[str, Command]:
        """Return the command lines by action; the action is "" for a verb without actions."""
        listed = {
            words.partition(" ")[2]: command
            for words, command in commands().items()
            if words.partition(" ")[0] == self.name
        }
        functions = [node.name for node in tree(self.module).body if isinstance(node, ast.FunctionDef)]
        own = next((name for name in functions if name.removesuffix("_") == self.name), None)
        names = [own] if own else [name for name in functions if not name.startswith("_")]
        return listed or {
            "" if own else name.removesuffix("_"): Command(
                " ".join(["genstack", self.name, *([] if own else [name.removesuffix("_")])]),
                (f"{self.module}.{name}",),
            )
            for name in names
        }

    def run(self, arguments: list[str]) -> int | None:
        """Run the verb with the words after its name, or print help."""
        actions = self.actions()
        help_flag = next((word for word in arguments if word in ("-h", "--help")), None)
        if arguments and arguments[0] and arguments[0] in actions:
            command, rest = actions[arguments[0]], arguments[1:]
        elif "" in actions and (len(actions) == 1 or (arguments and arguments[0] != help_flag)):
            command, rest = actions[""], arguments
        elif not arguments or arguments[0] == help_flag:
            print(self.usage(actions))
            return None if arguments else 2
        else:
            raise UserError(f"genstack {self.name}: {unknown('action', arguments[0], actions)}")
        if help_flag:
            print(command_help(command))
            return None
        if place := next((word for word in rest if word.partition("=")[0].endswith(".help")), None):
            print(part_help(command, place))
            return None
        module = importlib.import_module(self.module)
        if command in commands().values():
            return module.run(arguments)
        return call(getattr(module, command.flags[0].rpartition(".")[2]), command, rest)

    def usage(self, actions: Mapping[str, Command]) -> str:
        """List the actions of the verb."""
        names = {name: name or " ".join(command.positional()).upper() for name, command in actions.items()}
        width = max(map(len, names.values()))
        summaries = {names[name]: command.description.partition("\n")[0] for name, command in actions.items()}
        lines = [f"  {name:{width}}  {summary.rstrip('.')}" for name, summary in summaries.items()]
        more = f"Details:  genstack {self.name} ACTION --help"
        return "\n".join([f"{self.summary}\n", *lines, f"\nFor example:  {self.example}", more])


@cache
def verbs() -> Mapping[str, Verb]:
    """Find the verbs by name."""
    files = sorted((Path(__file__).parent / "verbs").glob("*.py"))
    return MappingProxyType({verb.name: verb for file in files if (verb := read(file))})


def read(file: Path) -> Verb | None:
    """Read the verb of a file; None unless its docstring shows a command `genstack <file name>`."""
    lines = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").splitlines()
    shown = [line.strip() for line in lines if line.strip().startswith(f"genstack {file.stem}")]
    return Verb(file.stem, lines[0].rstrip("."), shown[0]) if shown else None


def call(function: Callable, command: Command, arguments: list[str]) -> int | None:
    """Call a function with the arguments of a command line."""
    from genstack.cli.parsing.parser import Parser  # imports all of genstack, which help does not need

    return function(**Parser(command).parse(arguments).as_dict())
