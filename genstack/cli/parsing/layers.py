"""Layers of settings: inherited ones, files, flags."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from genstack import models
from genstack.cli.commands import Command
from genstack.cli.parsing.paths import expand
from genstack.cli.parsing.source import Argument, Part, choices, words
from genstack.errors import UserError
from genstack.yaml_files import Loader

#: Types of lists of numbers, and of unions of these with numbers and None.
NUMBERS = re.compile(r"(?=.*(tuple|list)\[)(int|float|None|tuple|list|[][ ,.|])+")


class Layers(list[tuple[str, dict]]):
    """Pairs of a prefix for messages (`FILE: ` or `--`) and settings; later pairs win."""

    def get(self, place: str) -> Any:
        """Return a setting from the last layer that has it; None without one."""
        values = (lookup(layer, place, missing=self) for _, layer in reversed(self))
        return next((value for value in values if value is not self), None)

    def prefix(self, place: str) -> str:
        """Return the prefix of the last layer that has a setting."""
        found = (prefix for prefix, layer in reversed(self) if lookup(layer, place, missing=self) is not self)
        return next(found, "--")

    def replace(self, place: str, value: Any) -> None:
        """Change a setting in the last layer that has it."""
        *path, last = place.split(".")
        layer = next(layer for _, layer in reversed(self) if lookup(layer, place, missing=self) is not self)
        for name in path:
            layer = inside(layer)[name]
        inside(layer)[last] = value

    def check_groups(self, command: Command) -> None:
        """Raise a UserError if a group of settings has a plain value, or a layer has a setting `config`."""
        for prefix, layer in self:
            if "config" in layer:  # jsonargparse would read another file
                raise UserError(
                    "unknown option '--config'" if prefix == "--" else f"{prefix}unknown setting 'config'"
                )
            for name, group in command.groups.items():
                if not isinstance(layer.get(name, {}), dict):
                    dot = f"{prefix if prefix == '--' else ''}{name}"
                    listed = ", ".join(f"{dot}.{one}" for one in [*group.arguments()][:5])
                    raise UserError(f"{prefix}{name} is a group of settings; set {listed}")

    def check_empty(self, command: Command) -> None:
        """Raise a UserError if an option has an empty value, which is neither given nor left out.

        Files can hold empty text where it is the default.
        """
        for prefix, layer in self:
            for argument, place, text in self._texts(command, layer):
                if not text.strip() and (prefix == "--" or argument.default != "''"):
                    spelled = f"--{place.replace('_', '-')}" if prefix == "--" else f"{prefix}{place}"
                    expected = " or ".join(choices(argument)) or words(argument)
                    advice = "" if argument.default is None else ", or leave it out"
                    raise UserError(f"{spelled} is empty; expected {expected}{advice}")

    def _texts(self, command: Command, value: Any, place: str = "") -> Iterator[tuple[Argument, str, str]]:
        """Yield each text at and below a place, with its option and place."""
        argument = self.argument(command, place) if place else None
        value = unfold(value) if argument and choices(argument) else value
        if isinstance(value, Mapping):
            for name, below in value.items():
                own = place if name in ("class_path", "init_args") else f"{place}.{name}".lstrip(".")
                yield from self._texts(command, below, own)
        elif isinstance(value, list):
            for below in value:
                yield from self._texts(command, below, place)
        elif isinstance(value, str) and argument:
            yield argument, place, value

    def split_numbers(self, command: Command) -> None:
        """Split flags such as `48,64`; otherwise jsonargparse reads all settings once to refuse each."""
        for argument, place, text in [*self._texts(command, dict(self).get("--", {}))]:
            split = "," in text and text[0] not in "[{" and NUMBERS.fullmatch(argument.hint)
            if split and self.get(place) == text:  # not one of several values
                self.replace(place, text.split(","))

    def expand_paths(self, command: Command) -> None:
        """Replace `~` in paths, and names of models that come with genstack."""
        for place in command.paths():
            if (path := self.get(place)) is not None:
                self.replace(place, expand(path))
        for place in command.models():
            if isinstance(name := self.get(place), str):
                self.replace(place, models.locate(name))
            elif isinstance(names := self.get(place), list):
                self.replace(place, [models.locate(name) for name in names])

    def part(self, argument: Argument, place: str) -> tuple[Part, int] | None:
        """Return the class that the layers choose for an argument, or its default, or the only choice."""
        found = choices(argument)
        for _, layer in reversed(self):
            value = unfold(lookup(layer, place))
            path = value.get("class_path") if isinstance(value, Mapping) else value
            named = path.rpartition(".")[2] if isinstance(path, str) else ""
            if named in found:
                return found[named]
        default = (argument.default or "").partition("(")[0]
        return found.get(default) or (next(iter(found.values())) if len(found) == 1 else None)

    def settings(self, command: Command, place: str) -> dict[str, Argument]:
        """Return the settings below a place, given the chosen classes."""
        if not place:
            return command.arguments()
        head, _, rest = place.partition(".")
        if not rest and head in command.groups:
            return command.groups[head].arguments()
        if (argument := self.argument(command, place)) is None:
            return {}
        if chosen := self.part(argument, place):
            return chosen[0].arguments(chosen[1])
        return {}

    def full_names(self, command: Command) -> list[dict]:
        """Return the settings of each layer, with the full name of every class that is in use.

        A file may name a class by a module that it was in before. And jsonargparse looks for short names
        among all subclasses of the process, also in plugins that are not in use any more.
        """
        arguments = command.arguments()
        groups = {name: group.arguments() for name, group in command.groups.items()}
        return [
            {
                name: self._full_names_of(groups[name], value, name)
                if name in groups
                else self._full_name(arguments.get(name), value, name)
                for name, value in layer.items()
            }
            for _, layer in self
        ]

    def _full_names_of(self, arguments: Mapping[str, Argument], settings: Any, place: str) -> Any:
        if not isinstance(settings, Mapping):
            return settings
        return {
            name: self._full_name(arguments.get(name), value, f"{place}.{name}")
            for name, value in settings.items()
        }

    def _full_name(self, argument: Argument | None, value: Any, place: str) -> Any:
        found = choices(argument) if argument else {}
        value = unfold(value) if found else value
        if found and isinstance(value, list):
            return [self._full_name(argument, entry, place) for entry in value]
        named = value.get("class_path") if isinstance(value, Mapping) else value
        chosen = next(
            (one for one in found.values() if isinstance(named, str) and one[0].is_named(named)), None
        )
        if not isinstance(value, Mapping):
            return chosen[0].path if chosen else value
        if named is None and argument is not None:
            chosen = self.part(argument, place)
        if chosen is None:
            return value
        arguments = chosen[0].arguments(chosen[1])
        if not {"class_path", "init_args"} & {*value}:
            return self._full_names_of(arguments, value, place)
        below = {"init_args": self._full_names_of(arguments, value.get("init_args", {}), place)}
        return {**value, **below} | ({"class_path": chosen[0].path} if named else {})

    def names(self, command: Command, place: str = "") -> list[str]:
        """List the settings below a place at any depth, for suggestions."""
        found = [f"{place}.{name}".lstrip(".") for name in self.settings(command, place)]
        found += [] if place else [*command.groups]
        below = [name for name in found if place.count(".") < 2]
        return found + [inner for name in below for inner in self.names(command, name)]

    def argument(self, command: Command, place: str) -> Argument | None:
        """Setting at a place; None for none."""
        parent, _, name = place.rpartition(".")
        return self.settings(command, parent).get(name)


def nest(given: Iterable[tuple[str, Any]]) -> dict:
    """Nest values by dotted name; a class and its settings may come in either order."""
    layer: dict = {}
    for name, value in given:
        *path, last = [part for part in name.split(".") if part != "init_args"]
        if last == "class_path" and path:
            *path, last = path
        node = layer
        for part in path:
            below = node.setdefault(part, {})
            if not isinstance(below, dict):
                below = node[part] = {"class_path": below, "init_args": {}}
            node = inside(below)
        text = True if value is None else value  # --name alone
        old = node.get(last)
        node[last] = (
            {"class_path": text, "init_args": old}
            if isinstance(old, dict) and isinstance(text, str)
            else text
        )
    return layer


def unfold(value: Any) -> Any:
    """Parse text in braces or brackets as YAML; return other values as they are."""
    try:
        return yaml.load(value, Loader) if isinstance(value, str) and value.startswith(("{", "[")) else value
    except yaml.YAMLError:
        return value


def inside(value: dict) -> dict:
    """Return the `init_args` of a class, or the mapping itself."""
    return (
        value.setdefault("init_args", {}) if "class_path" in value or set(value) == {"init_args"} else value
    )


def lookup(layer: Any, place: str, missing: Any = None) -> Any:
    """Return the value at a dotted place, or `missing`."""
    for name in place.split(".") if place else ():
        if isinstance(layer, Mapping) and ("class_path" in layer or set(layer) == {"init_args"}):
            layer = layer.get("init_args", {})
        if isinstance(layer, list) and name.isdigit() and int(name) < len(layer):
            layer = layer[int(name)]
        elif isinstance(layer, list):
            layer = next((found for one in layer if (found := lookup(one, name)) is not None), missing)
        elif isinstance(layer, Mapping) and name in layer:
            layer = layer[name]
        else:
            return missing
    return layer
