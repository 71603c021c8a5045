"""The words of a command line: which are files, which are settings, and which name was meant."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches


def meant(problem: str, name: str, names: Iterable[str], place: str = "") -> str:
    """A problem with a name, and the known name that was probably meant, or else the choice.

    Args:
        problem: what is wrong, in words.
        name: the name that is not known.
        names: the known ones.
        place: what stands before every name.
    """
    known = list(names)
    begun = [one for one in known if name and one.startswith(name)]
    if near := begun or get_close_matches(name, known, n=1, cutoff=0.5):
        return f"{problem}; did you mean {place.rpartition(': ')[2]}{near[0]}?"
    choice = ", ".join(known) if len(known) <= 20 else f"{', '.join(known[:20])}, ..."
    return f"{problem}; there is {choice}" if known else problem


def nearest(name: str, names: Iterable[str], kind: str) -> str:
    """That a name is none of a kind, and which was probably meant."""
    return meant(f"{name} is no {kind}", name, names)


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
        fits = self.words and (
            self.words[0] in ("true", "false") if switch else not self.words[0].startswith("--")
        )
        return self.words.pop(0) if fits else None
