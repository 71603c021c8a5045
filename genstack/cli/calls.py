"""Commands as calls from Python: keyword arguments become the words of a command line."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from genstack.cli.commands import Command
from genstack.cli.main import dispatch
from genstack.cli.parsing.layers import Layers
from genstack.cli.parsing.source import words as type_words
from genstack.cli.quiet import quiet
from genstack.cli.verb import verbs
from genstack.errors import UserError

SIGNAL = 128  # exit codes above are of signals


def run(command: str, *places: Any, **settings: Any) -> None:
    """Run a command of genstack, as `run("evaluate", "runs/flowers-prior", count=1000)`.

    Args:
        command: words after `genstack`, such as `train compressor`.
        places: values that need no name; a list for several.
        settings: options by name; a mapping for a group of settings, a sequence for several values, and None
            for null, or for an option that is not given. A part can be its class's name, a mapping with its
            settings, or the part itself.

    Raises:
        UserError: an invalid setting; or a check such as `config check` found a fault, which it printed.
        SystemExit: a signal stopped the command.
    """
    name, _, action = command.partition(" ")
    actions = verbs()[name].actions() if name in verbs() else {}
    line = actions.get(action) or actions.get("")
    with quiet():
        code = dispatch(
            [*command.split(), *flat(places), *words(without_none(settings, line) if line else settings)]
        )
    if code and code > SIGNAL:
        raise SystemExit(code)
    if code:
        raise UserError(f"genstack {command} found faults; they are printed above")


def without_none(settings: Mapping[str, Any], command: Command, prefix: str = "") -> dict[str, Any]:
    """Leave out options with None whose type has no null."""
    kept = {}
    for name, value in settings.items():
        argument = Layers().argument(command, f"{prefix}{name}")
        if isinstance(value, Mapping):
            kept[name] = without_none(value, command, f"{prefix}{name}.")
        elif value is not None or argument is None or "null" in type_words(argument).split("|"):
            kept[name] = value
    return kept


def flat(places: Sequence[Any]) -> list[str]:
    """Values that need no name, with those of lists one by one."""
    return [str(each) for place in places for each in (place if isinstance(place, list | tuple) else [place])]


def words(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The words of a command line that say the same as some keyword arguments."""
    for name, value in settings.items():
        flag = f"--{prefix}{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            yield from words(value, f"{prefix}{name}.")
        elif name in ("config", "plugin"):
            for file in value if isinstance(value, list | tuple) else [value]:
                yield f"{flag}={file}"
        elif isinstance(value, list | tuple) and all(isinstance(each, str) for each in value) and value:
            yield from (flag, *value)
        else:
            yield f"{flag}={text(value)}"


def text(value: Any) -> str:
    """One value as a word."""
    return str(value) if isinstance(value, str | Path) else json.dumps(plain(value))


def plain(value: Any) -> Any:
    """A value as a configuration has it; parts as their class and settings."""
    if isinstance(value, nn.Module) or is_dataclass(value):
        from genstack.cli.parsing.stages import as_settings
        from genstack.description import describe

        return as_settings(describe(value))
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, bool | int | float | str | None):
        name = type(value).__name__
        raise UserError(
            f"a setting cannot be an object of {name}; expected numbers, text, paths, parts of genstack, or "
            f'a class with its arguments: {{"class_path": "{name}", "init_args": {{...}}}}'
        )
    return value
