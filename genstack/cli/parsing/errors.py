"""Errors of jsonargparse rewritten as one line: setting, expected value, closest known name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from genstack.cli.commands import Command
from genstack.cli.parsing.layers import Layers, unfold
from genstack.cli.parsing.source import Argument, choices, words
from genstack.cli.parsing.words import suggest

SHOWN = 3  # settings of one name in different places
#: Phrases in the messages of jsonargparse 4.53, which nest from the outermost setting to the cause.
PHRASES = {
    "key": r'Parser key "([^"]+)"',
    "group": r"Group '([^']*)' does not accept",
    "unknown": r"option '([^']*)'",
    "class": r"Expected a dot import path string: ([^\n]*?)(?=\. Got value|\n|$)",
    "missing": r"arguments are required: ([\w., ]+?)(?=\. Got value|\n|$)",
    "value": r"Expected an? ()|Not a valid subclass|Importing|Import path|Dict must include|has no attribute",
}
TOKEN = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in PHRASES.items()), re.IGNORECASE)


@dataclass(frozen=True)
class ParserError:
    """An error of jsonargparse.

    Args:
        kind: a key of `PHRASES`.
        place: dotted name of the setting.
        name: the unknown or missing name, or the message itself.
    """

    kind: str
    place: str
    name: str = ""


def read_error(text: str) -> ParserError:
    """Follow the settings that a message names to the first cause; unions count by their first member."""
    path: list[str] = []
    for match in TOKEN.finditer(text):
        kind, name = str(match.lastgroup), match[int(match.lastindex or 0) + 1] or ""
        if kind not in ("key", "group"):
            return ParserError(kind, ".".join(path), name)
        path.append(name)
    return ParserError("value", ".".join(path), text)


def explain(error: ParserError, command: Command, layers: Layers) -> str:
    """Describe an error in one line, with the way out."""
    place, name = error.place, error.name
    if error.kind == "unknown":
        return _unknown(command, layers, f"{place}.{name}".lstrip("."))
    if error.kind == "missing":
        return _missing(command, layers, f"{place}.{name.partition(',')[0]}".lstrip("."))
    argument, spelled = layers.argument(command, place), spell(place, layers.prefix(place))
    if argument is None:
        return f"{spelled}: {' '.join(name.split())}" if name else f"{spelled} is invalid"
    value, element = unfold(layers.get(place)), name if error.kind == "class" else ""
    return _class(argument, spelled, value, element) or _value(argument, spelled, value)


def spell(place: str, prefix: str) -> str:
    """Write a setting as people do: with dashes on the command line, with underscores in files."""
    return f"--{place.replace('_', '-')}" if prefix == "--" else f"{prefix}{place}"


def _unknown(command: Command, layers: Layers, place: str) -> str:
    prefix, path = layers.prefix(place), place.split(".")
    unknown = (".".join(path[:end]) for end in range(1, len(path)) if not _known(command, layers, path[:end]))
    place = next(unknown, place)
    parent, _, name = place.rpartition(".")
    owner = layers.argument(command, parent) if parent else None
    chosen = layers.part(owner, parent) if owner else None
    if chosen and name in chosen[0].arguments():
        return f"{spell(place, prefix)} is set by genstack from the data; leave it out"
    if stray := stray_setting(unfold(layers.get(parent))):
        return f"{spell(f'{parent}.{stray}', prefix)} must be inside init_args, since class_path is given"
    known = layers.names(command, parent)
    beside = {one.rpartition(".")[2]: one for one in known if one.count(".") == place.count(".")}
    below = {one.rpartition(".")[2]: one for one in reversed(known)}
    near = [one for one in known if one.rpartition(".")[2] == name][:SHOWN]
    near = near or [beside[leaf] for leaf in get_close_matches(name, beside, n=1)]
    near = near or [below[leaf] for leaf in get_close_matches(name, below, n=1, cutoff=0.8)]
    kind, (file, dot) = ("option", ("", "--")) if prefix == "--" else ("setting", (prefix, ""))
    problem = f"{file}unknown {kind} '{spell(place, dot)}'"
    if near:
        guesses = " or ".join(f"'{spell(one, dot)}'" for one in near)
        return f"{problem}; did you mean {guesses}?"
    return f"{problem}; choose from {', '.join(spell(one, dot) for one in beside.values())}"


def stray_setting(value: Any) -> str:
    """Return a key beside `class_path` that belongs inside `init_args`; empty without one."""
    if not isinstance(value, Mapping) or "class_path" not in value:
        return ""
    return next((str(key) for key in value if key not in ("class_path", "init_args")), "")


def _known(command: Command, layers: Layers, path: list[str]) -> bool:
    place = ".".join(path)
    return place in command.groups or layers.argument(command, place) is not None


def _missing(command: Command, layers: Layers, place: str) -> str:
    argument, spelled = layers.argument(command, place), spell(place, "--")
    if place in command.positional() and not command.files:
        spelled = place.upper()
    if argument is None:
        return f"{spelled} is missing"
    if found := choices(argument):
        recipe = command.files and len(layers) < 3
        hint = "; or begin with a recipe, --config NAME: `genstack config list`" if recipe else ""
        return f"{spelled} is missing; choose {', '.join(found)}{hint}"
    meaning = argument.help.partition(". ")[0].rstrip(".")
    return (
        f"{spelled} is missing: {meaning}" if meaning else f"{spelled} is missing; expected {words(argument)}"
    )


def _class(argument: Argument, spelled: str, value: Any, element: str) -> str:
    """Describe an invalid class name; empty if it is valid, or no class is expected."""
    found, name = choices(argument), spelled.rpartition(": ")[2]
    if stray := stray_setting(value):
        return f"{spelled}.{stray} must be inside init_args, since class_path is given"
    if found and isinstance(value, Mapping) and "class_path" not in value:
        return f"{spelled}: choose a class before its settings; {name}=NAME, one of {', '.join(found)}"
    named = value.get("class_path") if isinstance(value, Mapping) else element if element else value
    if not found or not isinstance(named, str) or any(part.is_named(named) for part, _ in found.values()):
        return ""
    if named[:1] in ("{", "["):
        return f"{spelled}: invalid YAML '{named}'; brackets and quotation marks come in pairs"
    return suggest(f"{spelled}: unknown {argument.name} '{named}'", named, found)


def _value(argument: Argument, spelled: str, value: Any) -> str:
    if isinstance(value, Mapping) and not isinstance(value.get("init_args", {}), Mapping):
        return f"{spelled}.init_args must be a group of settings, got '{value['init_args']}'"
    expected = " or ".join(choices(argument)) or words(argument)
    if value is None or (value is True and spelled.startswith("--")):
        return f"{spelled} has no value; expected {expected}"
    text = ",".join(map(str, value)) if isinstance(value, list) else value
    return f"{spelled}: expected {expected}, got '{text}'"
