"""Sampling options as flags: presets, and sweeps over several values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from jsonargparse import Namespace

from genstack.cli.parsing.words import unknown
from genstack.errors import UserError
from genstack.model import Model
from genstack.prior import SamplingOptions

#: Types of the options that `--sweep` accepts.
SWEEPABLE = {
    field.name: type(field.default)
    for field in fields(SamplingOptions)
    if isinstance(field.default, int | float | str)
}


@dataclass(frozen=True)
class Preset:
    """Sampling options under one name.

    Args:
        preset: `fid` (as learned, to be measured), `pretty` (less varied, fewer mistakes) or a preset of the
            run, whose `default` applies without this flag; the options below override it.
    """

    preset: str = ""


def resolve_options(
    settings: Namespace, model: Model, overrides: Mapping[str, Any] | None = None
) -> SamplingOptions:
    """Lay the flags of a command line, then `overrides`, over a preset of the model.

    Args:
        settings: parsed flags of `Preset` and `SamplingOptions`.
        model: holds the presets.
        overrides: options that replace the flags.
    """
    flags = {field.name: getattr(settings, field.name) for field in fields(SamplingOptions)}
    return model.options(settings.preset, flags | dict(overrides or {}))


def parse_sweep(sweep: Sequence[str]) -> dict[str, list[Any]]:
    """Read the values of each option from `temperature=0.8,1.0 guidance=1,2`, in one word or several."""
    axes: dict[str, list[Any]] = {}
    for word in " ".join(sweep).split():
        name, _, values = word.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        if name not in SWEEPABLE:
            raise UserError(f"--sweep {word}: {unknown('option', name, SWEEPABLE)}")
        if name in axes:
            raise UserError(f"--sweep sets {name} twice; give all its values at once, as in {name}=1,2")
        try:
            axes[name] = [SWEEPABLE[name](value) for value in values.split(",")]
        except ValueError:
            raise UserError(f"--sweep {word}: expected values as in {name}=1,2") from None
        if len(set(axes[name])) < len(axes[name]):
            raise UserError(f"--sweep {word}: a value is repeated; give each once")
    return axes
