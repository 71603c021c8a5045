"""Split a command line into names and values, and suggest known names for unknown ones."""

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from genstack.errors import UserError


def suggest(problem: str, name: str, names: Iterable[str]) -> str:
    """Append the closest known name to a problem, or else the choices."""
    known = list(names)
    starts = [one for one in known if name and one.startswith(name)]
    if near := starts or get_close_matches(name, known, n=1, cutoff=0.5):
        return f"{problem}; did you mean '{near[0]}'?"
    listed = ", ".join(known[:20]) + ", ..." * (len(known) > 20)
    return f"{problem}; choose from {listed}" if known else problem


def unknown(kind: str, name: str, names: Iterable[str]) -> str:
    """Describe an unknown name, and suggest a known one."""
    return suggest(f"unknown {kind} '{name}'", name, names)


def split(
    arguments: Iterable[str],
    switches: Mapping[str, Collection[str]] = MappingProxyType({}),
    lists: Collection[str] = (),
) -> list[tuple[str, Any]]:
    """Split into `--name value`, `--name=value`, `--name` and values alone; dashes become underscores.

    Args:
        arguments: words from the shell.
        switches: values of each name whose value can be absent, such as true, false and "".
        lists: names that take all words up to the next `--name`.

    Returns:
        names with values, in order: "" for a value without a name, None for a name without a value.
    """
    found: list[tuple[str, Any]] = []
    rest = list(arguments)
    value: Any
    while rest:
        word = rest.pop(0)
        name, equals, text = word.removeprefix("--").partition("=")
        name, value = name.replace("-", "_"), text if equals else None
        following = bool(rest) and not rest[0].startswith("--")
        if not word.startswith("--"):
            name, value = "", word
        elif name in lists:
            count = next((index for index, other in enumerate(rest) if other.startswith("--")), len(rest))
            value = [text][: len(equals)] + rest[:count] or None
            del rest[:count]
        elif not equals and following and (name not in switches or rest[0].strip() in switches[name]):
            value = rest.pop(0)
        found.append((name, value))
    return found


def name_values(
    words: list[tuple[str, Any]], places: Collection[str], lists: Collection[str], command: str
) -> list[tuple[str, Any]]:
    """Give positional values their names, and put them first; too many or repeated ones are errors."""
    given, names = [value for name, value in words if not name], list(places)
    if given and names and names[0] in lists:
        given = [given]
    if len(given) > len(names):
        takes = f"the command takes {' '.join(names).upper()}" if names else "settings are --NAME VALUE"
        raise UserError(f"unexpected argument '{given[len(names)]}'; {takes}: {command} --help")
    found = [*zip(names, given, strict=False), *((name, value) for name, value in words if name)]
    seen: set[str] = set()
    for name, _ in found:
        if name in seen and name != "config":
            raise UserError(f"--{name.replace('_', '-')} is given twice; keep one")
        seen.add(name)
    return found
