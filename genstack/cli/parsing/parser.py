"""Parse the settings of a command: jsonargparse lays files over defaults, and flags over files."""

import importlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse
import yaml

import genstack
from genstack import discovery, plugins
from genstack.cli.commands import Command
from genstack.cli.parsing import source
from genstack.cli.parsing.errors import explain, read_error
from genstack.cli.parsing.layers import Layers, nest
from genstack.cli.parsing.paths import expand
from genstack.cli.parsing.recipes import read
from genstack.cli.parsing.words import name_values, split
from genstack.errors import UserError
from genstack.yaml_files import Loader

Flags = TypeVar("Flags")
#: Packages whose classes settings can name.
PACKAGES = ("compressor", "losses", "transformer", "conditions", "prior", "data")
#: Another one, for trainings only: it imports Lightning, which takes three seconds.
TRAINING = "training"


class Parser:
    """Parser of one command. Later sources win: defaults, inherited settings, files, flags.

    `parse` returns a namespace, and `build` the objects that it describes. `dump` and `parse_saved` convert a
    namespace to the content of config.yaml and back. Errors are UserErrors of one line that begin with the
    command.
    """

    def __init__(self, command: Command):
        self.command = command
        self.flags = command.arguments()
        self._errors: list[UserError] = []
        self._settings: dict = {}
        configure()
        trains = any(
            group.class_path.startswith(f"genstack.{TRAINING}.") for group in command.groups.values()
        )
        for package in (*PACKAGES, TRAINING) if trains else PACKAGES:
            trust(package)
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
                locate(group.class_path),
                prefix,
                skip={*group.skip},
                instantiate=group.build,
                sub_configs=False,
            )

    def parse(
        self,
        arguments: list[str],
        inherit: Callable[[Layers], Mapping[str, Any]] | None = None,
        override: Callable[[Layers], Mapping[str, Any]] | None = None,
    ) -> jsonargparse.Namespace:
        """Parse a command line; `--print-config` prints the settings and exits.

        Args:
            arguments: words after the command.
            inherit: returns settings that files and flags override, given both.
            override: returns settings that override files and that flags override, given all others.
        """
        switches = {
            name: ["", *source.words(flag).split("|")]
            for name, flag in self.flags.items()
            if flag.hint.startswith("bool")
        }
        lists = {name for name, flag in self.flags.items() if flag.hint.startswith(("list", "tuple[str"))}
        with self._prefix_errors():
            words = split(arguments, switches | {"print_config": ()}, lists)
            named = name_values(words, self.command.positional(), lists, self.command.name)
            own = ("config", "print_config") if self.command.files else ()
            layers = Layers(self._read_file(value) for name, value in named if own and name == "config")
            layers.append(("--", nest(pair for pair in named if pair[0] not in own)))
            layers.check_empty(self.command)
            layers.expand_paths(self.command)
            if inherit is not None:
                layers.insert(0, ("", dict(inherit(layers))))
            if override is not None:
                layers.insert(len(layers) - 1, ("--size: ", dict(override(layers))))
            settings = self._parse(layers)
        if ("print_config", None) in words and own:
            print(yaml.safe_dump(self.dump(settings), sort_keys=False, allow_unicode=True), end="")
            raise SystemExit(0)
        return settings

    def preview(self, content: Mapping, file: str) -> tuple[dict, list[str]]:
        """Complete one file with defaults; also return the required settings that it lacks."""
        layers = Layers([(f"{file}: ", dict(content))])
        layers.check_empty(self.command)
        required = [action for action in self._parser._actions if action.required]
        absent = [action.dest for action in required if layers.get(action.dest) is None]
        for action in required:
            action.required = action.dest not in absent
        try:
            with self._prefix_errors():
                return self.dump(self._parse(layers)), absent
        finally:
            for action in required:
                action.required = True

    def parse_saved(self, saved: Mapping, file: str) -> jsonargparse.Namespace:
        """Parse the settings that `dump` returned and `file` holds."""
        with self._prefix_errors():
            return self._parse(Layers([(f"{file}: ", dict(saved))]))

    def dump(self, settings: jsonargparse.Namespace) -> dict:
        """Return all settings, defaults included, as plain values for YAML."""
        return plain(settings.as_dict())

    def build(self, settings: jsonargparse.Namespace) -> jsonargparse.Namespace:
        """Build the objects that the settings describe; errors of constructors name the setting."""
        self._settings, self._errors = plain(settings), []
        try:
            with trusted_plugins():
                built = self._parser.instantiate(settings, instantiators=[(self._instantiate, object, True)])
        except Exception:
            if not self._errors:
                raise
        if self._errors:  # after the first error, jsonargparse tries the other members of a union
            raise self._errors[0]
        return built

    def _read_file(self, file: str | None) -> tuple[str, dict]:
        """Read the file or recipe of --config."""
        if file is None or not file.strip():
            raise UserError("--config has no value; expected a recipe or a file: --config FILE")
        file = expand(file)
        return f"{file}: ", read(Path(file), self.command.name.rpartition(" ")[2])

    def _parse(self, layers: Layers) -> jsonargparse.Namespace:
        """Merge and check the layers with jsonargparse; `4` and `4,5` become lists where expected."""
        if self.command.groups:
            source.check_plugins()
        layers.check_groups(self.command)
        layers.split_numbers(self.command)
        while True:
            words = [f"--config={json.dumps(layer)}" for layer in layers.full_names(self.command)]
            try:
                with trusted_plugins() if self.command.groups else nullcontext():
                    settings = self._parser.parse_args(words)
            except jsonargparse.ArgumentError as raised:
                error = read_error(str(raised))
                if not self._split_list(error.place, layers):
                    raise UserError(explain(error, self.command, layers)) from None
            else:
                settings.pop("config", None)
                return settings

    def _split_list(self, place: str, layers: Layers) -> bool:
        """Replace text, or one class, by a list where a list is expected; return True if possible."""
        argument = layers.argument(self.command, place)
        value = layers.get(place)
        if argument is None or isinstance(value, list | bool) or value is None:
            return False
        if isinstance(value, dict) and "class_path" not in value:
            return False
        if "tuple[" not in argument.hint and "list[" not in argument.hint:
            return False
        layers.replace(place, [value] if isinstance(value, dict) else str(value).split(","))
        return True

    @contextmanager
    def _prefix_errors(self) -> Iterator[None]:
        """Prefix UserErrors raised inside with the command."""
        try:
            yield
        except UserError as error:
            raise self._prefix_error(str(error)) from None

    def _prefix_error(self, message: str) -> UserError:
        begins = message.startswith(self.command.name)
        return UserError(message if begins else f"{self.command.name}: {message}")

    def _instantiate(self, kind: type, *arguments: Any, **named: Any) -> Any:
        """Build an object; an error of its constructor names the setting."""
        try:
            return kind(*arguments, **named)
        except construction_errors() as error:  # evaluated after an error only
            groups = {locate(group.class_path): prefix for prefix, group in self.command.groups.items()}
            place = find_class(self._settings, kind) or groups.get(kind, kind.__name__)
            inner = str(error).startswith(self.command.name)
            self._errors.append(self._prefix_error(str(error) if inner else f"{place}: {error}"))
            raise self._errors[-1] from error


def plain(value: Any) -> Any:
    """Convert a value to types that YAML holds."""
    if isinstance(value, jsonargparse.Namespace | Mapping):
        entries = vars(value) if isinstance(value, jsonargparse.Namespace) else value
        return {name: plain(entry) for name, entry in entries.items() if entry is not jsonargparse.Unset}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def to_dataclass(kind: type[Flags], settings: jsonargparse.Namespace) -> Flags:
    """Collect the fields of a dataclass from the flags of the same names."""
    return kind(**{name: getattr(settings, name) for name in inspect.signature(kind).parameters})


def locate(path: str) -> Any:
    """Import an object of genstack by its full dotted name."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def load_text(text: str) -> Any:
    """Parse settings from JSON, or a value of the command line from YAML."""
    try:
        return json.loads(text) if text.startswith("{") else yaml.load(text, Loader)
    except json.JSONDecodeError:
        return yaml.load(text, Loader)


def construction_errors() -> tuple[type[Exception], ...]:
    """Return the errors by which constructors refuse settings, Lightning's included."""
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    return ValueError, MisconfigurationException


@cache
def configure() -> None:
    """Read settings as YAML, and let them name no class but trusted ones: files of settings are untrusted."""
    jsonargparse.set_loader("genstack", load_text, exceptions=(yaml.YAMLError,))
    jsonargparse.set_parsing_settings(
        import_path_denylist=["*"], subclasses_enabled=["is_pure_dataclass"], unset_sentinel=True
    )


@cache
def trust(package: str) -> None:
    """Import the parts of one of genstack's packages, and let settings name their classes."""
    trusted = set()
    for module in discovery.modules(importlib.import_module(f"genstack.{package}")):
        for name, member in inspect.getmembers(module, inspect.isclass):
            if member.__module__.startswith(f"{genstack.__name__}."):
                parents = module.__name__.split(".")
                trusted |= {".".join([*parents[:end], name]) for end in range(1, len(parents) + 1)}
    trusted |= {
        ".".join([*part.module.split(".")[:end], part.node.name])
        for part in (source.lightning_callbacks() if package == TRAINING else ())
        for end in range(1, part.module.count(".") + 2)
    }
    jsonargparse.set_parsing_settings(import_path_allowlist=sorted(trusted))


@contextmanager
def trusted_plugins() -> Iterator[None]:
    """Import the plugins in use, and let settings name their classes for a while."""
    added = [f"{part.__module__}.{part.__name__}" for part in plugins.classes()]
    jsonargparse.set_parsing_settings(import_path_allowlist=added)
    try:
        yield
    finally:
        jsonargparse.set_parsing_settings(import_path_denylist=added)


def find_class(value: Any, kind: type, place: str = "") -> str | None:
    """Find the first setting that names a class."""
    if isinstance(value, Mapping):
        if value.get("class_path", "").rpartition(".")[2] == kind.__name__:
            return place
        inside = value.get("init_args", {}) if "class_path" in value else value
        entries = [(f"{place}.{name}".lstrip("."), entry) for name, entry in inside.items()]
    else:
        several = value if isinstance(value, list | tuple) else []
        entries = [(f"{place}.{index}", entry) for index, entry in enumerate(several)]
    return next(
        (found for name, entry in entries if (found := find_class(entry, kind, name)) is not None), None
    )
