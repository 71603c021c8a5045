"""What stands behind --sweep: options of sampling with several values each."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from genstack.cli.parsing.words import nearest
from genstack.errors import UserError
from genstack.prior import SamplingOptions

FLAG = "--sweep"
#: Options with one value each, by name, with the type of that value.
KINDS = {
    field.name: type(field.default)
    for field in fields(SamplingOptions)
    if isinstance(field.default, int | float | str)
}


def join(arguments: Sequence[str]) -> list[str]:
    """A command line in which the words behind --sweep are one."""
    words: list[str] = []
    sweeping = False
    for word in arguments:
        sweeping = word == FLAG or (sweeping and "=" in word and not word.startswith("--"))
        if sweeping and len(words) > 1 and words[-2] == FLAG:
            words[-1] += f" {word}"
        else:
            words.append(word)
    return words


def axes_of(sweep: str) -> dict[str, list[Any]]:
    """The values of each option: `temperature=0.8,1.0 guidance=1,2`.

    Raises:
        UserError: an option is unknown or named twice, or a value is none of its kind.
    """
    axes: dict[str, list[Any]] = {}
    for word in sweep.split():
        name, _, listed = word.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        if name not in KINDS:
            raise UserError(f"--sweep {word}: {nearest(name, KINDS, 'option to sweep')}")
        if name in axes:
            raise UserError(f"--sweep names {name} twice; give all its values at once, as in {name}=1,2")
        try:
            axes[name] = [KINDS[name](value) for value in listed.split(",")]
        except ValueError:
            raise UserError(f"--sweep {word}: give values as in {name}=1,2") from None
        if len(set(axes[name])) < len(axes[name]):
            raise UserError(f"--sweep {word}: each value once")
    return axes
