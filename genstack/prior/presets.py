"""Settings of sampling under one name: those that a run keeps, and else ones that mostly work."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from genstack.errors import UserError
from genstack.prior.options import SamplingOptions

#: `fid` draws what was learned, as measures of whole sets expect; `pretty` trades variety for fewer mistakes.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "fid": {},
    "pretty": {"temperature": 0.9, "top_p": 0.95, "guidance": 2.0},
}


def options_of(
    preset: str, given: Mapping[str, Any], kept: Mapping[str, Any], guided: bool
) -> SamplingOptions:
    """The options of a preset, but for those that are given.

    Args:
        preset: its name; "" for none.
        given: options by name; None for those that are not given.
        kept: the run's own presets by name.
        guided: whether the prior can be guided; guidance of our own presets is left out where it cannot.

    Raises:
        UserError: there is no such preset, or the one of the run holds what is no option.
    """
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        if preset in kept:
            chosen = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in kept[preset].items()
            }
        elif preset in PRESETS:
            chosen = {name: value for name, value in PRESETS[preset].items() if guided or name != "guidance"}
        elif preset:
            raise UserError(
                f"preset {preset} is unknown; this run has {', '.join(dict.fromkeys([*kept, *PRESETS]))}"
            )
        else:
            chosen = {}
        return SamplingOptions(**{**chosen, **values})
    except (TypeError, AttributeError) as error:  # a file may hold anything
        known = ", ".join(field.name for field in fields(SamplingOptions))
        raise UserError(f"the run's preset {preset} is damaged: it must give some of {known}") from error
