"""Values of --sweep: sampling options with several values each."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from genstack.cli.parsing.words import unknown
from genstack.errors import UserError
from genstack.prior import SamplingOptions

#: Options with one plain value, by name, with the type of that value.
KINDS = {
    field.name: type(field.default)
    for field in fields(SamplingOptions)
    if isinstance(field.default, int | float | str)
}


def axes_of(sweep: Sequence[str]) -> dict[str, list[Any]]:
    """The values of each option, from `temperature=0.8,1.0 guidance=1,2` in one word or several.

    Raises:
        UserError: an option is unknown or repeated, or a value is invalid.
    """
    axes: dict[str, list[Any]] = {}
    for word in " ".join(sweep).split():
        name, _, listed = word.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        if name not in KINDS:
            raise UserError(f"--sweep {word}: {unknown('option', name, KINDS)}")
        if name in axes:
            raise UserError(f"--sweep names {name} twice; give all its values at once, as in {name}=1,2")
        try:
            axes[name] = [KINDS[name](value) for value in listed.split(",")]
        except ValueError:
            raise UserError(f"--sweep {word}: expected values as in {name}=1,2") from None
        if len(set(axes[name])) < len(axes[name]):
            raise UserError(f"--sweep {word}: a value is repeated; give each once")
    return axes
