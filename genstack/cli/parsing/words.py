"""The words of a command line: values by place, values by name, and the name that was probably meant."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches

from genstack.errors import UserError


def suggest(problem: str, name: str, names: Iterable[str], prefix: str = "") -> str:
    """A problem with a name, followed by the closest known name, or else by the choices.

    Args:
        problem: the error.
        name: the name that is unknown.
        names: known names.
        prefix: of every known name.
    """
    known = list(names)
    starts = [one for one in known if name and one.startswith(name)]
    if near := starts or get_close_matches(name, known, n=1, cutoff=0.5):
        return f"{problem}; did you mean '{prefix}{near[0]}'?"
    listed = ", ".join(known[:20]) + ", ..." * (len(known) > 20)
    return f"{problem}; choose from {listed}" if known else problem


def unknown(kind: str, name: str, names: Iterable[str]) -> str:
    """An unknown name, and the closest known one."""
    return suggest(f"unknown {kind} '{name}'", name, names)


@dataclass
class Words:
    """A command line, in order.

    Args:
        positional: values without a name.
        named: values by dotted name; None where no value was given.
    """

    positional: list[str] = field(default_factory=list)
    named: list[tuple[str, str | list[str] | None]] = field(default_factory=list)

    def values(self, name: str) -> list[str | list[str] | None]:
        """Every value of one name."""
        return [value for key, value in self.named if key == name]


def split(arguments: Iterable[str], switches: Collection[str] = (), lists: Collection[str] = ()) -> Words:
    """Read `--name value`, `--name=value`, `--name` and values without a name; dashes become underscores.

    Args:
        arguments: words from the shell.
        switches: names whose value is `true` or `false`, and may be left out.
        lists: names that take all words up to the next `--name`.
    """
    words, rest = Words(), list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            words.positional.append(word)
            continue
        name, equals, text = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        value: str | list[str] | None = text if equals else None
        if name in lists:
            value = [text] if equals else []
            while rest and not rest[0].startswith("--"):
                value.append(rest.pop(0))
        elif not equals and rest and not rest[0].startswith("--"):
            value = rest.pop(0) if name not in switches or rest[0] in ("true", "false") else None
        words.named.append((name, value))
    return words


def pairs(words: Words, places: Collection[str], lists: Collection[str], command: str) -> list[tuple]:
    """All values with their names, those by place first.

    Raises:
        UserError: a value has no place, or a name is given twice.
    """
    names, given = list(places), list(words.positional)
    if given and names and names[0] in lists:
        placed: list[tuple] = [(names[0], given)]
    elif len(given) > len(names):
        takes = f"the command takes {' '.join(names).upper()}" if names else "settings are --NAME VALUE"
        extra = given[len(names)]
        raise UserError(f"unexpected argument '{extra}'; {takes}: {command} --help")
    else:
        placed = [*zip(names, given, strict=False)]
    found = [*placed, *(pair for pair in words.named if pair[0] not in ("config", "print_config"))]
    for name in (names := [name for name, _ in found]):
        if names.count(name) > 1:
            raise UserError(f"--{name.replace('_', '-')} is given twice; keep one")
    return found
