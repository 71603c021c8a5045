"""Settings of one command: jsonargparse lays files over defaults and flags over files, checks, and builds."""

import importlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse
import yaml

import genstack
from genstack import discovery
from genstack.cli.commands import Command
from genstack.cli.parsing import source
from genstack.cli.parsing.layers import Layers, nest, short_names
from genstack.cli.parsing.mistakes import Mistake, explain, read_error
from genstack.cli.parsing.recipes import Loader, read
from genstack.cli.parsing.words import name_values, split
from genstack.errors import UserError

Flags = TypeVar("Flags")


class Parser:
    """Reads the settings of a command: defaults, then inherited ones, then files, then the command line.

    `parse` makes a namespace, `build` makes the objects that it describes. `resolved` is what a run folder
    keeps, and `reread` the way back. Errors are UserErrors of one line that begin with the command.
    """

    def __init__(self, command: Command):
        self.command = command
        self.flags = command.arguments()
        self._refusals: list[UserError] = []
        self._settings: dict = {}
        trust_own_classes()
        self._parser = jsonargparse.ArgumentParser(
            prog=command.name, exit_on_error=False, parser_mode="genstack"
        )
        self._parser.add_argument("--config", action="config")
        for path in (*command.flags, *filter(None, [command.options])):
            for name, parameter in inspect.signature(locate(path), eval_str=True).parameters.items():
                hint, default = parameter.annotation, parameter.default
                if path == command.options:
                    hint, default = hint | None, None
                given = {"required": True} if default is parameter.empty else {"default": default}
                self._parser.add_argument(f"--{name}", type=hint, **given)
        for prefix, group in command.groups.items():
            self._parser.add_class_arguments(
                locate(group.kind), prefix, skip={*group.skip}, instantiate=group.build, sub_configs=False
            )

    def parse(
        self, arguments: list[str], inherit: Callable[[Layers], Mapping[str, Any]] | None = None
    ) -> jsonargparse.Namespace:
        """The settings of a command line. `--print-config` prints them and ends the program.

        Args:
            arguments: words after the command.
            inherit: makes settings that files and flags override, from these.
        """
        switches = {name for name, flag in self.flags.items() if flag.hint == "bool"}
        lists = {name for name, flag in self.flags.items() if flag.hint.startswith(("list", "tuple[str"))}
        with self._prefix_errors():
            words = split(arguments, switches | {"print_config"}, lists)
            named = name_values(words, self.command.positional(), lists, self.command.name)
            own = ("config", "print_config") if self.command.files else ()
            layers = Layers(self._read(value) for name, value in named if own and name == "config")
            layers.append(("--", nest(pair for pair in named if pair[0] not in own)))
            layers.expand_paths(self.command)
            if inherit is not None:
                layers.insert(0, ("", dict(inherit(layers))))
            settings = self._parse(layers)
        if ("print_config", None) in words and own:
            print(yaml.safe_dump(self.resolved(settings), sort_keys=False, allow_unicode=True), end="")
            raise SystemExit(0)
        return settings

    def preview(self, content: Mapping, file: str) -> tuple[dict, list[str]]:
        """The settings of one file with all defaults, and the names of settings that it leaves open."""
        layers = Layers([(f"{file}: ", dict(content))])
        required = [action for action in self._parser._actions if action.required]
        absent = [action.dest for action in required if layers.get(action.dest) is None]
        for action in required:
            action.required = action.dest not in absent
        try:
            with self._prefix_errors():
                return self.resolved(self._parse(layers)), absent
        finally:
            for action in required:
                action.required = True

    def reread(self, saved: Mapping, file: str) -> jsonargparse.Namespace:
        """The settings that `resolved` saved in a file."""
        with self._prefix_errors():
            return self._parse(Layers([(f"{file}: ", dict(saved))]))

    def resolved(self, settings: jsonargparse.Namespace) -> dict:
        """All settings, defaults too, as plain values that a file can hold."""
        return plain(settings.as_dict())

    def build(self, settings: jsonargparse.Namespace) -> jsonargparse.Namespace:
        """The objects that the settings describe.

        Raises:
            UserError: a constructor refuses its arguments; the message names the setting.
        """
        self._settings, self._refusals = settings.as_dict(), []
        try:
            built = self._parser.instantiate(settings, instantiators=[(self._instantiate, object, True)])
        except Exception:
            if not self._refusals:
                raise
        if self._refusals:  # jsonargparse tries the other members of a union after the first refusal
            raise self._refusals[0]
        return built

    def _read(self, file: str | None) -> tuple[str, dict]:
        """A layer of settings from --config."""
        if file is None:
            raise UserError("--config has no value; expected a recipe or a file: --config FILE")
        return f"{file}: ", read(Path(file), self.command.name.rpartition(" ")[2])

    def _parse(self, layers: Layers) -> jsonargparse.Namespace:
        """Let jsonargparse lay one source over the other; `4` and `4,5` become lists where expected."""
        layers.check_groups(self.command)
        while True:
            words = [f"--config={json.dumps(short_names(layer))}" for _, layer in layers]
            try:
                settings = self._parser.parse_args(words)
            except jsonargparse.ArgumentError as error:
                mistake = read_error(str(error))
                if not self._listed(mistake, layers):
                    raise UserError(explain(mistake, self.command, layers)) from None
            else:
                settings.pop("config", None)
                return settings

    def _listed(self, mistake: Mistake, layers: Layers) -> bool:
        """Replace text by a list where a list is expected; returns if that was possible."""
        argument = layers.argument(self.command, mistake.place)
        text = layers.get(mistake.place)
        if argument is None or isinstance(text, list | dict | bool) or text is None:
            return False
        if "tuple[" not in argument.hint and "list[" not in argument.hint:
            return False
        layers.replace(mistake.place, str(text).split(","))
        return True

    @contextmanager
    def _prefix_errors(self) -> Iterator[None]:
        """Begin UserErrors raised here with the command."""
        try:
            yield
        except UserError as error:
            raise self._prefixed(str(error)) from None

    def _prefixed(self, message: str) -> UserError:
        begins = message.startswith(self.command.name)
        return UserError(message if begins else f"{self.command.name}: {message}")

    def _instantiate(self, kind: type, *arguments: Any, **named: Any) -> Any:
        """Make an object; a refusal by its constructor is told with the setting's name."""
        try:
            return kind(*arguments, **named)
        except ValueError as error:
            groups = {locate(group.kind): prefix for prefix, group in self.command.groups.items()}
            place = place_of(self._settings, kind) or groups.get(kind, kind.__name__)
            inner = str(error).startswith(self.command.name)
            self._refusals.append(self._prefixed(str(error) if inner else f"{place}: {error}"))
            raise self._refusals[-1] from error


def plain(value: Any) -> Any:
    """A value as YAML can hold it."""
    if isinstance(value, jsonargparse.Namespace | Mapping):
        entries = vars(value) if isinstance(value, jsonargparse.Namespace) else value
        return {name: plain(entry) for name, entry in entries.items() if entry is not jsonargparse.Unset}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def made(kind: type[Flags], settings: jsonargparse.Namespace) -> Flags:
    """The object of a class whose arguments are flags."""
    return kind(**{name: getattr(settings, name) for name in inspect.signature(kind).parameters})


def locate(path: str) -> Any:
    """The object with a full dotted name in genstack's own code."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def load_text(text: str) -> Any:
    """Read a layer of settings, which is JSON, or a value from the command line, which is YAML."""
    try:
        return json.loads(text) if text.startswith("{") else yaml.load(text, Loader)
    except json.JSONDecodeError:
        return yaml.load(text, Loader)


@cache
def trust_own_classes() -> None:
    """Import all parts, and let settings name their classes and nothing else.

    A file of settings may come from a stranger: no other name is ever imported.
    """
    trusted = set()
    for package in source.PACKAGES:
        for module in discovery.modules(importlib.import_module(f"genstack.{package}")):
            for name, member in inspect.getmembers(module, inspect.isclass):
                if member.__module__.startswith(f"{genstack.__name__}."):
                    parents = module.__name__.split(".")
                    trusted |= {".".join([*parents[:end], name]) for end in range(1, len(parents) + 1)}
    jsonargparse.set_loader("genstack", load_text, exceptions=(yaml.YAMLError,))
    jsonargparse.set_parsing_settings(
        import_path_denylist=["*"],
        import_path_allowlist=sorted(trusted),
        subclasses_enabled=["is_pure_dataclass"],
        unset_sentinel=True,
    )


def place_of(value: Any, kind: type, place: str = "") -> str | None:
    """The first place in settings where a class is named."""
    if isinstance(value, Mapping):
        if value.get("class_path", "").rpartition(".")[2] == kind.__name__:
            return place
        inside = value.get("init_args", {}) if "class_path" in value else value
        entries = [(f"{place}.{name}".lstrip("."), entry) for name, entry in inside.items()]
    else:
        several = value if isinstance(value, list | tuple) else []
        entries = [(f"{place}.{index}", entry) for index, entry in enumerate(several)]
    return next(
        (found for name, entry in entries if (found := place_of(entry, kind, name)) is not None), None
    )
