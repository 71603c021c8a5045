"""Sampling options that a model supports, and how a page asks for them."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from genstack.cli.parsing.source import find
from genstack.errors import UserError
from genstack.model import Model
from genstack.prior import SamplingOptions

#: Another valid value of each option, by which a model is asked whether it supports the option.
TRIALS: dict[str, Any] = {
    "temperature": 0.5,
    "temperature_schedule": "linear",
    "top_k": 1,
    "top_p": 0.5,
    "min_p": 0.5,
    "guidance": 2.0,
    "guidance_schedule": "linear",
    "guidance_interval": (0.1, 0.9),
    "guidance_power": 2.0,
    "guidance_peak": "end",
    "steps": 1,
    "solver": "euler",
}
#: Options whose effect depends on another.
NEEDS = {name: "guidance" for name in TRIALS if name.startswith("guidance_")}
#: Ends of the sliders.
RANGES = {"temperature": (0.0, 2.0), "top_p": (0.01, 1.0), "min_p": (0.0, 1.0), "guidance": (0.0, 10.0)}
#: The most important options.
FIRST = ("temperature", "guidance", "top_k", "top_p", "steps")


@dataclass(frozen=True)
class Offer:
    """A sampling option of a model.

    Args:
        name: name of the option.
        words: its help.
        default: value of the model's default preset.
        choices: its values, if they are named.
        ends: lowest and highest value of a slider; None for others.
    """

    name: str
    words: str
    default: Any
    choices: tuple[str, ...] = ()
    ends: tuple[float, float] | None = None

    @property
    def label(self) -> str:
        """Name for people."""
        return self.name.replace("_", " ").replace("top ", "top-").replace("min p", "min-p").capitalize()


def offers(model: Model) -> list[Offer]:
    """Sampling options that a model supports, the most important first."""
    base, found = model.options(), []
    hints = get_type_hints(SamplingOptions)
    texts = find("genstack.prior.SamplingOptions").arguments()
    for name in [*FIRST, *(one.name for one in fields(SamplingOptions) if one.name not in FIRST)]:
        if supports(model, name) and supports(model, NEEDS.get(name, name)):
            choices = get_args(hints[name]) if get_origin(hints[name]) is Literal else ()
            found.append(Offer(name, texts[name].help, getattr(base, name), choices, RANGES.get(name)))
    return found


def supports(model: Model, name: str) -> bool:
    """Return True if a model accepts another value of an option."""
    try:
        model.check_options(replace(SamplingOptions(), **{name: TRIALS[name]}))
    except UserError:
        return False
    return True
