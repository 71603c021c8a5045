"""Named sampling options: built-in presets, and those saved in a run."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from genstack.errors import UserError
from genstack.prior.options import SamplingOptions

#: Of priors over codes: `fid` samples the learned distribution, as metrics expect; `pretty` trades variety
#: for fewer mistakes.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "fid": {},
    "pretty": {"temperature": 0.9, "top_p": 0.95, "guidance": 2.0},
}


def resolve_options(
    preset: str,
    given: Mapping[str, Any],
    kept: Mapping[str, Any],
    guided: bool,
    built_in: Mapping[str, Mapping[str, Any]] = PRESETS,
) -> SamplingOptions:
    """Combine a preset with options that are given.

    Args:
        preset: its name; "" for the run's `default`, if it has one.
        given: options by name; None for those that are not given.
        kept: presets saved in the run, by name.
        guided: True if the prior supports guidance; built-in presets leave guidance out otherwise.
        built_in: built-in presets of the prior.

    Raises:
        UserError: the preset is unknown, or the run's preset is invalid.
    """
    preset = preset or ("default" if "default" in kept else "")
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        if preset in kept:
            chosen = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in kept[preset].items()
            }
        elif preset in built_in:
            chosen = {name: value for name, value in built_in[preset].items() if guided or name != "guidance"}
        elif preset:
            raise UserError(
                f"unknown preset '{preset}'; available: {', '.join(dict.fromkeys([*kept, *built_in]))}"
            )
        else:
            chosen = {}
        return SamplingOptions(**{**chosen, **values})
    except (TypeError, AttributeError) as error:  # a file may hold anything
        known = ", ".join(field.name for field in fields(SamplingOptions))
        raise UserError(f"invalid preset '{preset}' in the run; expected some of {known}") from error
