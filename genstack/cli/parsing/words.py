"""The words of a command line: values by place, values by name, and the name that was probably meant."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Any

from genstack.errors import UserError


def suggest(problem: str, name: str, names: Iterable[str]) -> str:
    """A problem with a name, followed by the closest known name, or else by the choices."""
    known = list(names)
    starts = [one for one in known if name and one.startswith(name)]
    if near := starts or get_close_matches(name, known, n=1, cutoff=0.5):
        return f"{problem}; did you mean '{near[0]}'?"
    listed = ", ".join(known[:20]) + ", ..." * (len(known) > 20)
    return f"{problem}; choose from {listed}" if known else problem


def unknown(kind: str, name: str, names: Iterable[str]) -> str:
    """An unknown name, and the closest known one."""
    return suggest(f"unknown {kind} '{name}'", name, names)


def split(
    arguments: Iterable[str], switches: Collection[str] = (), lists: Collection[str] = ()
) -> list[tuple[str, Any]]:
    """Read `--name value`, `--name=value`, `--name` and values without a name; dashes become underscores.

    Args:
        arguments: words from the shell.
        switches: names whose value is `true` or `false`, and may be left out.
        lists: names that take all words up to the next `--name`.

    Returns:
        names with values, in order: "" as the name of a value without one, None as the value of a lone name.
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
            value = [text][: len(equals)] + rest[:count]
            del rest[:count]
        elif not equals and following and (name not in switches or rest[0] in ("true", "false")):
            value = rest.pop(0)
        found.append((name, value))
    return found


def name_values(
    words: list[tuple[str, Any]], places: Collection[str], lists: Collection[str], command: str
) -> list[tuple[str, Any]]:
    """All values with their names, those by place first.

    Raises:
        UserError: a value has no place, or a name is given twice.
    """
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
