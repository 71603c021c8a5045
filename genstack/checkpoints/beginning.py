"""Parts that begin with the weights of another run, every one of which must fit."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from torch import nn

from genstack.checkpoints.files import load
from genstack.compressor import Compressor
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior import Condition, Prior

Part = TypeVar("Part", bound=nn.Module)


def begun(make: Callable[[int], Compressor], place: Path) -> Callable[[int], Compressor]:
    """What makes a compressor with the weights of another; every one of them must fit."""
    before = load(place).compressor

    def made(channels: int) -> Compressor:
        return filled(make(channels), before, place)

    return made


def begun_prior(
    make: Callable[[CodeLayout, Condition], Prior], place: Path, model: Model
) -> Callable[[CodeLayout, Condition], Prior]:
    """What makes a prior over a model's codes with the weights of another; every one of them must fit."""
    before = prior_of(place)

    def made(layout: CodeLayout, condition: Condition) -> Prior:
        prior = make(layout, condition)
        prior.attach(model.compressor)
        return filled(prior, before, place)

    return made


def prior_of(place: Path) -> Prior:
    """The prior of a run."""
    prior = load(place).prior
    if prior is None:
        raise UserError(f"{place} has no prior; name a run of `train prior`, or leave out --init")
    return prior


def filled(part: Part, before: nn.Module, place: Path) -> Part:
    """A part with the weights of another one like it."""
    expected, given = part.state_dict(), before.state_dict()
    wrong = sorted(expected.keys() ^ given.keys())
    wrong += [name for name in expected if name in given and expected[name].shape != given[name].shape]
    if wrong:
        raise UserError(
            f"the weights of {place} do not fit this {type(part).__name__}: {', '.join(wrong[:5])}"
        )
    part.load_state_dict(given)
    return part
