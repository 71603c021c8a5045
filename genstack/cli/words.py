"""The words of a command line: which are files, which are settings, and which name was meant."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches


def nearest(name: str, names: Iterable[str], kind: str) -> str:
    """That a name is unknown, the one that was probably meant, and the choice if it is short enough to read."""
    choice = list(names)
    near = get_close_matches(name, choice, n=1, cutoff=0.5)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"{name} is no {kind}{meant} ({', '.join(choice)})"


@dataclass
class Words:
    """What a command line says, in the order in which it says it.

    Args:
        positional: words without a name.
        settings: values by dotted name; None where no value was given.
    """

    positional: list[str] = field(default_factory=list)
    settings: list[tuple[str, str | None]] = field(default_factory=list)

    def all(self, name: str) -> list[str | None]:
        """Every value of one name."""
        return [value for key, value in self.settings if key == name]


def split(arguments: Iterable[str], switches: frozenset[str] = frozenset()) -> Words:
    """Words without a name, and `--name value`, `--name=value` or `--name`; dashes in names are underscores.

    Args:
        arguments: the words, as the shell gave them.
        switches: names that are true or false; their value may be left out.
    """
    words, rest = Words(), _Rest(list(arguments))
    for word in rest:
        if word == "-h":
            words.settings.append(("help", None))
        elif not word.startswith("--"):
            words.positional.append(word)
        else:
            name, equals, value = word.removeprefix("--").partition("=")
            name = name.replace("-", "_")
            words.settings.append((name, value if equals else rest.value(name in switches)))
    return words


@dataclass
class _Rest:
    words: list[str]

    def __iter__(self) -> Iterator[str]:
        while self.words:
            yield self.words.pop(0)

    def value(self, switch: bool) -> str | None:
        """The next word, if it can be a value."""
        fits = self.words and (self.words[0] in ("true", "false") if switch else not self.words[0].startswith("--"))
        return self.words.pop(0) if fits else None
