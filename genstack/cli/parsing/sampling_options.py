"""Sampling options as flags: presets, and sweeps over several values."""

from collections.abc import Callable, Collection, Mapping, Sequence
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

#: Options that take part in sampling only beside another: that one, and its values.
NEEDED: tuple[tuple[str, str, Callable[[Any], bool], str], ...] = (
    *(
        (f"guidance_{name}", "guidance", lambda scale: scale != 1, "a value other than 1")
        for name in ("schedule", "interval", "power", "peak")
    ),
    ("guidance_power", "guidance_schedule", lambda schedule: schedule == "cosine", "cosine"),
    (
        "guidance_peak",
        "guidance_schedule",
        lambda schedule: schedule != "constant",
        "linear, cosine or power",
    ),
    *(
        (name, "temperature", lambda temperature: temperature > 0, "a value above 0")
        for name in ("temperature_schedule", "top_k", "top_p", "min_p")
    ),
)


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

    Raises:
        UserError: a flag has no effect beside the other options, or the model does not have the preset.
    """
    flags = {field.name: getattr(settings, field.name) for field in fields(SamplingOptions)}
    options = model.options(settings.preset, flags | dict(overrides or {}))
    check_effects(options, {name for name, value in flags.items() if value is not None}, overrides or {})
    return options


def check_effects(options: SamplingOptions, given: Collection[str], swept: Collection[str]) -> None:
    """Check that each flag with a value of its own takes part in sampling, but for what a sweep varies."""
    for name, other, sufficient, needed in NEEDED:
        value, beside = getattr(options, name), getattr(options, other)
        if name not in given or value == getattr(SamplingOptions(), name) or {name, other} & {*swept}:
            continue
        if not sufficient(beside):
            words = ",".join(map(str, value)) if isinstance(value, tuple) else value
            raise UserError(
                f"{flag(name)} {words} has no effect with {flag(other)} {beside}; leave it out, or set "
                f"{flag(other)} to {needed}"
            )


def flag(name: str) -> str:
    """Spell an option as a flag."""
    return f"--{name.replace('_', '-')}"


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
