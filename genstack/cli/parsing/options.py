"""Options of sampling as flags: one for each field of `SamplingOptions`; left out, it says nothing."""

from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace

from genstack.cli.parsing.parser import Parser
from genstack.cli.parsing.signatures import settings_of
from genstack.model import Model
from genstack.prior import SamplingOptions

PRESET = (
    "options under one name, `fid` (as learned, to be measured), `pretty` (less varied, fewer mistakes) or "
    "one that the run keeps; the options below come before it."
)


def add_options(parser: Parser) -> None:
    """A preset, and every option that comes before it."""
    parser.add_option("preset", str, PRESET, "")
    parser.positional.append("preset")
    for name, setting in settings_of(SamplingOptions).items():
        shown = ",".join(map(str, setting.default)) if isinstance(setting.default, tuple) else setting.default
        help = f"{setting.help.rstrip('.')}; {shown} if left out, or what the preset says."
        parser.add_option(name, setting.hint | None, help, None)
        parser.positional.append(name)


def chosen(settings: Namespace, model: Model, over: Mapping[str, Any] | None = None) -> SamplingOptions:
    """The options that a command line chooses.

    Args:
        settings: with the flags of `add_options`.
        model: to draw with; keeps presets.
        over: options that come before the flags.
    """
    given = {name: getattr(settings, name) for name in settings_of(SamplingOptions)}
    return model.options(settings.preset, given | dict(over or {}))
