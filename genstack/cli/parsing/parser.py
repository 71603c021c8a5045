"""The command line of one verb: settings from signatures, files under flags, each mistake in one line."""

import importlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse
import yaml

from genstack import discovery
from genstack.cli.parsing import settings
from genstack.cli.parsing.help import explain
from genstack.cli.parsing.recipes import read
from genstack.cli.parsing.signatures import MISSING, Setting, settings_of, summary
from genstack.cli.parsing.words import Words, meant, split
from genstack.errors import UserError

Flags = TypeVar("Flags")

PARTS = (
    "genstack.compressor",
    "genstack.losses",
    "genstack.transformer",
    "genstack.conditions",
    "genstack.prior",
    "genstack.data",
)


class Parser:
    """Reads settings for one command. Defaults yield to files (`--config`, later ones win), files to flags.

    Add what can be set, then `parse` to a namespace, then `build` the objects. `resolved` is what a run
    folder keeps; `reread` is the way back. Every mistake is a UserError of one line that begins with the
    command.

    Args:
        command: the words that call it, for instance "genstack train compressor".
        description: what it does; the first words of its help.
        files: whether it takes `--config FILE`.
    """

    def __init__(self, command: str, description: str = "", files: bool = False):
        self.command, self.files = command, files
        self.description = description.partition("\nArgs:")[0].strip()
        self.settings: dict[str, Setting] = {}
        self.positional: list[str] = []
        self._arguments = jsonargparse.ArgumentParser(prog=command, exit_on_error=False)
        self._laid: dict = {}
        self._groups: dict[type, str] = {}

    def add_class(
        self, kind: type, name: str, skip: Collection[str] = (), build: bool = True, otherwise: str = ""
    ) -> None:
        """The arguments of a class as `--name.argument`.

        Args:
            kind: the class.
            name: of the group.
            skip: arguments that the program gives.
            build: make the class in `build`, or leave its arguments there, the classes among them made.
            otherwise: where its settings come from that nobody sets, for the help; "" for their defaults.
        """
        load_parts()
        inside = {key: value for key, value in settings_of(kind).items() if key not in skip}
        self.settings[name] = Setting(inside=inside, help=summary(kind), otherwise=otherwise)
        self._groups[kind] = name
        self._arguments.add_class_arguments(kind, name, skip=set(skip), instantiate=build, sub_configs=False)

    def add_function(self, function: Callable) -> None:
        """The arguments of a function, by name or, as in Python, by place."""
        arguments = settings_of(function)
        self.settings |= arguments
        self.positional += arguments
        self._arguments.add_function_arguments(function, as_positional=False, sub_configs=False)

    def add_flags(self, kind: type) -> None:
        """The arguments of a class, a setting of its own, by name or by place; `made` is the way back."""
        for name, setting in settings_of(kind).items():
            self.add_option(name, setting.hint, setting.help, setting.default)
            if setting.default is not MISSING:
                self.positional.append(name)

    def add_option(self, name: str, hint: Any, help: str, default: Any = MISSING) -> None:
        """One setting of its own; without a default it must be given, by name or by place."""
        self.settings[name] = Setting(hint, default, help=help)
        required = default is MISSING
        if required:
            self.positional.append(name)
        self._arguments.add_argument(
            f"--{name}", type=hint, help=help, required=required, default=None if required else default
        )

    def parse(
        self, arguments: list[str], inherited: Mapping[str, Any] | None = None
    ) -> jsonargparse.Namespace:
        """The settings of a command line. `--help` and `--print_config` print, and end the program.

        Args:
            arguments: what stands behind the command.
            inherited: settings that yield to files and to the command line.
        """
        words = self._words(arguments)
        if words.all("help"):
            print(explain(self.command, self.description, self.settings, self.positional, self.files))
            raise SystemExit(0)
        try:
            laid = settings.lay(self.settings, {}, inherited or {}, "", "")
            namespace = self._checked(self._lay_words(self._lay_files(laid, words), words))
        except settings.UnchosenError as error:
            recipe = self.files and not words.all("config")
            hint = "; or begin with a recipe, --config FILE: `genstack config list`" if recipe else ""
            raise UserError(f"{self.command}: {error}{hint}") from None
        except ValueError as error:
            raise UserError(f"{self.command}: {error}") from None
        if self.files and words.all("print_config"):
            print(yaml.safe_dump(self.resolved(namespace), sort_keys=False, allow_unicode=True), end="")
            raise SystemExit(0)
        return namespace

    def peek(self, arguments: list[str], name: str) -> Any:
        """One setting, `name` or `group.name`, as the command line gives it, or else a file."""
        words = self._words(arguments)
        if given := dict(self._named(words.positional)).get(name) or words.all(name):
            return given if isinstance(given, str) else given[-1]
        try:
            files = [read(Path(file)) for file in words.all("config") if file]
        except ValueError as error:
            raise UserError(f"{self.command}: {error}") from None
        group, _, last = name.rpartition(".")
        groups = [file.get(group) if group else file for file in reversed(files)]
        return next((found[last] for found in groups if isinstance(found, Mapping) and last in found), None)

    def preview(self, content: Mapping, source: str) -> tuple[dict, list[str]]:
        """The settings of one file with all defaults, and the names of those that are still to be given."""
        try:
            missing: list[str] = []
            laid = settings.lay(self.settings, {}, content, f"{source}: ", "")
            return settings.complete(self.settings, laid, "--", missing), missing
        except ValueError as error:
            raise UserError(f"{self.command}: {error}") from None

    def reread(self, saved: Mapping, source: str) -> jsonargparse.Namespace:
        """The settings that `resolved` saved; `source` is the file they come from, for messages."""
        try:
            return self._checked(settings.lay(self.settings, {}, saved, f"{source}: ", ""))
        except ValueError as error:
            raise UserError(f"{self.command}: {error}") from None

    def resolved(self, namespace: jsonargparse.Namespace) -> dict:
        """All settings, defaults too, in plain values that a file can hold."""
        return yaml.safe_load(self._arguments.dump(namespace, skip_unset=False, skip_validation=True))

    def build(self, namespace: jsonargparse.Namespace) -> jsonargparse.Namespace:
        """The objects that the settings describe.

        Raises:
            UserError: a constructor refuses its arguments; the message says where they were set.
        """
        self._laid = namespace.as_dict()
        return self._arguments.instantiate(namespace, instantiators=[(self._instantiate, object, True)])

    def _words(self, arguments: list[str]) -> Words:
        switches = {name for name, setting in self.settings.items() if setting.hint is bool}
        return split(arguments, frozenset(switches | {"print_config", "help"}))

    def _lay_files(self, laid: dict, words: Words) -> dict:
        for file in words.all("config") if self.files else ():
            if file is None:
                raise UserError("--config needs a file: --config FILE")
            laid = settings.lay(self.settings, laid, read(Path(file)), f"{file}: ", "")
        return laid

    def _lay_words(self, laid: dict, words: Words) -> dict:
        own = ("config", "print_config") if self.files else ()
        given = self._named(words.positional) + [pair for pair in words.settings if pair[0] not in own]
        seen: set[str] = set()
        for name, value in given:
            if name in seen:
                raise UserError(f"--{name} is given twice; keep one")
            seen.add(name)
            if name.endswith(".help"):
                self._explain(name.removesuffix(".help"), value)
            laid = settings.lay(self.settings, laid, nested(name, value), "--", "")
        return laid

    def _named(self, words: list[str]) -> list[tuple[str, str | None]]:
        """Words by place, with the names of their places."""
        if len(words) > len(self.positional):
            takes = (
                f"it takes {', '.join(self.positional).upper()}"
                if self.positional
                else "it takes only --settings"
            )
            raise UserError(f"what is {words[len(self.positional)]} for? {takes}; see {self.command} --help")
        return list(zip(self.positional, words, strict=False))

    def _checked(self, laid: dict) -> jsonargparse.Namespace:
        complete = settings.complete(self.settings, laid, "--")
        try:
            return self._arguments.parse_object(complete)
        except jsonargparse.ArgumentError as error:
            raise UserError(" ".join(str(error).split())) from None

    def _explain(self, place: str, name: str | None) -> None:
        """Print what can stand at a place, or the settings of one class that can, and stop."""
        kinds = settings.at(self.settings, place)
        if name is None:
            print("\n".join(f"{kind.__name__}: {summary(kind)}" for kind, _ in kinds.values()))
        elif name not in kinds:
            raise UserError(meant(f"--{place}: {name} is no choice", name, kinds))
        else:
            kind, given = kinds[name]
            inside = settings_of(kind, given)
            print(explain(f"--{place}={name}", summary(kind), inside, [], False, f"{place}."))
        raise SystemExit(0)

    def _instantiate(self, kind: type, *arguments: Any, **named: Any) -> Any:
        """Make an object; what its constructor refuses is told with the place where it was set."""
        try:
            return kind(*arguments, **named)
        except ValueError as error:
            place = settings.find(self._laid, kind) or self._groups.get(kind, kind.__name__)
            message = str(error)
            if not message.startswith(self.command):
                message = f"{self.command}: {place}: {message}"
            raise UserError(message) from error


def made(kind: type[Flags], settings: jsonargparse.Namespace) -> Flags:
    """The object of a class whose arguments are settings of their own."""
    return kind(**{name: getattr(settings, name) for name in settings_of(kind)})


def load_parts() -> None:
    """Import every part of genstack, so that it can be named."""
    for name in PARTS:
        discovery.modules(importlib.import_module(name))


def nested(name: str, value: Any) -> dict:
    """`a.b.c` and a value as mappings in mappings."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value
