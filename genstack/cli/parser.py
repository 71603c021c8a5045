"""The command line of one verb: settings from signatures, files under flags, every mistake told in one line."""

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

import genstack
from genstack import discovery
from genstack.cli import settings
from genstack.cli.settings import Setting
from genstack.cli.words import Words, nearest, split


class Parser:
    """Reads settings for one command. Defaults yield to files (`--config`, later ones win), and files to flags.

    Usage: add what can be set, then `parse` to a namespace, then `build` the objects. `resolved` is what a run folder
    keeps; `reread` is the way back. Every mistake of the user is a ValueError of one line that begins with the command.

    Args:
        command: the words that call it, for instance "genstack train compressor".
        description: what it does; the first words of its help.
        files: whether it takes `--config FILE`.
    """

    def __init__(self, command: str, description: str = "", files: bool = False):
        self.command, self.files = command, files
        self.settings: dict[str, Setting] = {}
        self.positional: list[str] = []
        self._arguments = jsonargparse.ArgumentParser(
            prog=command, description=description.split("\nArgs:")[0], exit_on_error=False
        )
        self._arguments.add_instantiator(self._instantiate, object, subclasses=True)
        self._parsed: dict = {}
        if files:
            self._arguments.add_argument(
                "--config", type=str, help="YAML file of settings; may be given several times, later files win over earlier"
                " ones, and settings on the command line win over files."
            )
            self._arguments.add_argument("--print_config", type=str, help="Print all settings as they would be used, and stop.")

    def add_class(self, kind: type, name: str, skip: frozenset[str] = frozenset(), build: bool = True) -> None:
        """The arguments of a class as `--name.argument`; `build` makes it from them, or leaves them as they are."""
        inside = {key: value for key, value in settings.settings_of(kind).items() if key not in skip}
        self.settings[name] = Setting(inside=inside)
        self._arguments.add_class_arguments(kind, name, skip=set(skip), instantiate=build)

    def add_function(self, function: Callable) -> None:
        """The arguments of a function, by name or, as in Python, by place."""
        arguments = settings.settings_of(function)
        self.settings |= arguments
        self.positional += arguments
        self._arguments.add_function_arguments(function, as_positional=True)

    def add_option(self, name: str, hint: Any, help: str, default: Any = settings.MISSING) -> None:
        """One option of its own; without a default it must be given, by place."""
        self.settings[name] = Setting(hint, default)
        if default is settings.MISSING:
            self.positional.append(name)
            self._arguments.add_argument(name, type=hint, help=help)
        else:
            self._arguments.add_argument(f"--{name}", type=hint, default=default, help=help)
