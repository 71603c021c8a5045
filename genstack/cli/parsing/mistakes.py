"""Errors of jsonargparse in one line: the setting, what is expected there, and the closest known name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import yaml

from genstack.cli.commands import Command
from genstack.cli.parsing.layers import Layers
from genstack.cli.parsing.recipes import Loader
from genstack.cli.parsing.source import Argument, choices, words
from genstack.cli.parsing.words import suggest

#: What the messages of jsonargparse 4.53 say, from the outermost place to the innermost fact.
SAYS = {
    "key": r'Parser key "([^"]+)"',
    "group": r"Group '([^']*)' does not accept",
    "unknown": r"option '([^']*)'",
    "class": r"Expected a dot import path string: ([^\n]*?)(?=\. Got value|\n|$)",
    "missing": r"arguments are required: ([\w., ]+?)(?=\. Got value|\n|$)",
    "value": r"Expected an? ()|Not a valid subclass|Importing|Import path|Dict must include|has no attribute",
}
TOKEN = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in SAYS.items()), re.IGNORECASE)


@dataclass(frozen=True)
class Mistake:
    """An error of jsonargparse.

    Args:
        kind: a key of `SAYS`.
        place: dotted name of the setting.
        name: what is unknown or missing there.
    """

    kind: str
    place: str
    name: str = ""


def read_error(text: str) -> Mistake:
    """The places that a message names, down to the first fact; of a union, the first member counts."""
    path: list[str] = []
    for match in TOKEN.finditer(text):
        kind, said = str(match.lastgroup), match[int(match.lastindex or 0) + 1] or ""
        if kind not in ("key", "group"):
            return Mistake(kind, ".".join(path), said)
        path.append(said)
    return Mistake("value", ".".join(path), text)


def explain(mistake: Mistake, command: Command, layers: Layers) -> str:
    """Describe a mistake in one line, with the way out."""
    place, name = mistake.place, mistake.name
    if mistake.kind == "unknown":
        return _unknown(command, layers, f"{place}.{name}".lstrip("."))
    if mistake.kind == "missing":
        return _missing(command, layers, f"{place}.{name.partition(',')[0]}".lstrip("."))
    argument, shown = layers.argument(command, place), show(place, layers.prefix(place))
    if argument is None:
        return f"{shown}: {' '.join(name.split())}" if name else f"{shown} is invalid"
    value, element = unfold(layers.get(place)), name if mistake.kind == "class" else ""
    return _class(argument, shown, value, element) or _value(argument, shown, value)


def show(place: str, prefix: str) -> str:
    """A setting as it is written: with dashes on the command line, with underscores in files."""
    return f"--{place.replace('_', '-')}" if prefix == "--" else f"{prefix}{place}"


def _unknown(command: Command, layers: Layers, place: str) -> str:
    prefix, path = layers.prefix(place), place.split(".")
    unknown = (".".join(path[:end]) for end in range(1, len(path)) if not _known(command, layers, path[:end]))
    place = next(unknown, place)
    parent, _, name = place.rpartition(".")
    owner = layers.argument(command, parent) if parent else None
    chosen = layers.part(owner, parent) if owner else None
    if chosen and name in chosen[0].arguments():
        return f"{show(place, prefix)} is set by genstack itself, from the data; leave it out"
    if stray := stray_setting(unfold(layers.get(parent))):
        return f"{show(f'{parent}.{stray}', prefix)} must be inside init_args, since class_path is given"
    known = layers.names(command, parent)
    beside = {one.rpartition(".")[2]: one for one in known if one.count(".") == place.count(".")}
    below = {one.rpartition(".")[2]: one for one in reversed(known)}
    near = [beside[leaf] for leaf in get_close_matches(name, beside, n=1)]
    near = near or [below[leaf] for leaf in get_close_matches(name, below, n=1, cutoff=0.8)]
    kind, (file, dot) = ("option", ("", "--")) if prefix == "--" else ("setting", (prefix, ""))
    problem = f"{file}unknown {kind} '{show(place, dot)}'"
    if near:
        return f"{problem}; did you mean '{show(near[0], dot)}'?"
    return f"{problem}; choose from {', '.join(show(one, dot) for one in beside.values())}"


def unfold(value: Any) -> Any:
    """A value, or the class that a text in braces describes."""
    try:
        return yaml.load(value, Loader) if isinstance(value, str) and value.startswith("{") else value
    except yaml.YAMLError:
        return value


def stray_setting(value: Any) -> str:
    """A setting that stands beside `class_path` instead of inside `init_args`; empty if there is none."""
    if not isinstance(value, Mapping) or "class_path" not in value:
        return ""
    return next((str(key) for key in value if key not in ("class_path", "init_args")), "")


def _known(command: Command, layers: Layers, path: list[str]) -> bool:
    place = ".".join(path)
    return place in command.groups or layers.argument(command, place) is not None


def _missing(command: Command, layers: Layers, place: str) -> str:
    argument, shown = layers.argument(command, place), show(place, "--")
    if argument is None:
        return f"{shown} is missing"
    if found := choices(argument):
        recipe = command.files and len(layers) < 3
        hint = "; or begin with a recipe, --config NAME: `genstack config list`" if recipe else ""
        return f"{shown} is missing; choose {', '.join(found)}{hint}"
    return f"{shown} is missing; {argument.help.rstrip('.') or f'expected {words(argument)}'}"


def _class(argument: Argument, shown: str, value: Any, element: str) -> str:
    """Describe the mistake in a class name; empty if it is valid or no class is expected."""
    found, name = choices(argument), shown.rpartition(": ")[2]
    if stray := stray_setting(value):
        return f"{shown}.{stray} must be inside init_args, since class_path is given"
    if found and isinstance(value, Mapping) and "class_path" not in value:
        return f"{shown}: choose a class before its settings; {name}=NAME, one of {', '.join(found)}"
    named = value.get("class_path") if isinstance(value, Mapping) else element if element else value
    if not found or not isinstance(named, str) or any(part.is_named(named) for part, _ in found.values()):
        return ""
    if named[:1] in ("{", "["):
        return f"{shown}: invalid YAML '{named}'; brackets and quotation marks come in pairs"
    return suggest(f"{shown}: unknown {argument.name} '{named}'", named, found)


def _value(argument: Argument, shown: str, value: Any) -> str:
    if isinstance(value, Mapping) and not isinstance(value.get("init_args", {}), Mapping):
        return f"{shown}.init_args must be a group of settings, got '{value['init_args']}'"
    expected = " or ".join(choices(argument)) or words(argument)
    if value is None or (value is True and shown.startswith("--")):
        return f"{shown} has no value; expected {expected}"
    text = ",".join(map(str, value)) if isinstance(value, list) else value
    return f"{shown}: expected {expected}, got '{text}'"
