"""Sampling options as flags, and presets of them."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from genstack.model import Model
    from genstack.prior import SamplingOptions


@dataclass(frozen=True)
class Preset:
    """Sampling options under one name.

    Args:
        preset: `fid` (as learned, to be measured), `pretty` (less varied, fewer mistakes) or a preset of the
            run; the options below override it.
    """

    preset: str = ""


def chosen_options(
    settings: "Namespace", model: "Model", changes: Mapping[str, Any] | None = None
) -> "SamplingOptions":
    """The options that a command line chooses.

    Args:
        settings: with the flags of `Preset` and `SamplingOptions`.
        model: keeps presets, and samples with the options.
        changes: options that override the flags.
    """
    from genstack.prior import SamplingOptions

    flags = {field.name: getattr(settings, field.name) for field in dataclasses.fields(SamplingOptions)}
    return model.options(settings.preset, flags | dict(changes or {}))
