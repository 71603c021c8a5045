"""Parts that begin with the weights of another run, every one of which must fit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

from torch import nn

from genstack.checkpoints.model_file import TENSORS, load
from genstack.compressor import Compressor
from genstack.conditions import Condition
from genstack.data.data import Data
from genstack.description import identity
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior import Prior

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


def other_codes(place: Path, model: Model) -> str:
    """That a prior was trained on codes which mean something else than a model's; "" where it was not."""
    there, here = identity(load(place)), identity(model)
    if there == here:
        return ""
    return (
        f"the prior of {place} was trained on the codes of another compressor ({there[:8]}, here "
        f"{here[:8]}): what it knows of codes does not hold here; leave out --init, unless both give nearly "
        f"the same codes"
    )


def reading(condition: Condition | None, data: Data, folder: Path, init: str | None) -> Condition | None:
    """A condition with the frozen compressor that it needs, if it needs one.

    Args:
        condition: as the settings say it.
        data: what the prior is trained on.
        folder: of the prior's run, whose own copy comes first.
        init: run whose prior's weights it begins with; its copy is taken where no compressor is named.
    """
    kept = folder if (folder / TENSORS).exists() else None
    if condition is not None and condition.compressor and kept is None:
        model = load(Path(condition.compressor))
        model.check_preprocessing(replace(data.preprocessing, channels=model.preprocessing.channels))
        return condition.with_compressor(model.compressor, identity(model))
    place = kept or (None if init is None else Path(init))
    before = None if place is None else prior_of(place).condition
    if condition is not None and isinstance(before, type(condition)) and before.network is not None:
        return condition.with_compressor(cast(Compressor, before.network), before.weights_hash)
    return condition


def prior_of(place: Path) -> Prior:
    """The prior of a run, or of a published file."""
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
