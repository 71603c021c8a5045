"""Initialization of compressors and priors with the weights of another run.

All weights must fit, except the embedding of a prior's condition: rows of its table are matched by the names
of classes or tokens, and the other rows are initialized as usual.
"""

import re
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from genstack.checkpoints.model_file import TENSORS, load
from genstack.compressor import Compressor
from genstack.conditions import Captions, ClassLabels, Condition
from genstack.conditions.vocabulary import load_tokenizer
from genstack.data.data import Data
from genstack.description import identity
from genstack.errors import UserError
from genstack.layout import Layout
from genstack.model import Model
from genstack.prior import Prior

#: Weights of a condition's embedding in a prior, and its table, whose rows have names.
PREFIX = re.compile(r"(^|\.)prefix\.")
TABLE = re.compile(r"(^|\.)prefix\.(table|tokens)\.weight$")


def initialized_compressor(make: Callable[[int], Compressor], place: Path) -> Callable[[int], Compressor]:
    """Wrap `make` so that the compressor has the weights of another run."""
    before = load(place).compressor

    def build(channels: int) -> Compressor:
        compressor = make(channels)
        load_weights(compressor, before.state_dict(), place)
        return compressor

    return build


def initialized_prior(
    make: Callable[[Layout, Condition], Prior], place: Path, model: Model, say: Callable[[str], None]
) -> Callable[[Layout, Condition], Prior]:
    """Wrap `make` so that the prior has the weights of another run or published file.

    Args:
        make: builds a prior over the model's codes.
        place: the other run, or a published file.
        model: the compressor.
        say: prints a line about weights that are not taken over.
    """
    before = load_prior(place)

    def build(layout: Layout, condition: Condition) -> Prior:
        prior = make(layout, condition)
        prior.attach(model.compressor)
        state, new_rows = condition_weights(prior, before)
        load_weights(prior, state, place)
        if new_rows:
            say(f"--init {place}: {new_rows}")
        return prior

    return build


def condition_weights(prior: Prior, before: Prior) -> tuple[dict[str, Tensor], str]:
    """Adapt the weights of another prior to this one's condition.

    Also return a line about weights that are not taken over; empty if all are.
    """
    state, new = dict(before.state_dict()), prior.state_dict()
    rows, old_rows = row_names(prior.condition), row_names(before.condition)
    if type(prior.condition) is not type(before.condition):
        old_rows = {}
    if len(rows) == len(old_rows) and list(old_rows)[:-1] == [str(label) for label in range(len(rows) - 1)]:
        old_rows = rows  # a published file only counts its classes; keep their order
    shared = rows.keys() & old_rows.keys()
    new_rows = False
    for name in filter(PREFIX.search, state.keys() | new.keys()):
        if name not in new:
            del state[name]
        elif (
            TABLE.search(name)
            and name in state
            and rows != old_rows
            and state[name].shape[1:] == new[name].shape[1:]
        ):
            table = new[name].clone()
            for row in shared:
                table[rows[row]] = state[name][old_rows[row]]
            state[name], new_rows = table, True
        elif name not in state or state[name].shape != new[name].shape:
            state[name], new_rows = new[name], True
    if not new_rows:
        return state, ""
    found = sorted(str(name) for name in shared if name is not None)
    if not found:
        return state, f"the embedding of the condition {type(prior.condition).__name__} is initialized anew"
    examples = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
    total = len([name for name in rows if name is not None])
    kind = "classes" if isinstance(prior.condition, ClassLabels) else "tokens"
    return (
        state,
        f"{len(found)} of {total} {kind} are found by name ({examples}); others are initialized anew",
    )


def row_names(condition: Condition) -> dict[Hashable, int]:
    """Map names of classes or tokens to rows of the condition's table; None is the null row."""
    if isinstance(condition, ClassLabels):
        return {**{name: label for label, name in enumerate(condition.names)}, None: len(condition.names)}
    if isinstance(condition, Captions):
        vocabulary = load_tokenizer(condition.merges).get_vocab()
        return {**{token: number + 1 for token, number in vocabulary.items()}, None: 0}
    return {}


def code_mismatch(place: Path, model: Model) -> str:
    """Return a warning if a prior was trained on the codes of another compressor; empty if not."""
    there, here = identity(load(place)), identity(model)
    if there == here:
        return ""
    return (
        f"the prior of {place} was trained on the codes of another compressor ({there[:8]}, not "
        f"{here[:8]}); leave out --init, unless both produce nearly the same codes"
    )


def condition_with_network(
    condition: Condition | None, data: Data, folder: Path, init: str | None
) -> Condition | None:
    """Return a condition with its frozen compressor, if it needs one.

    Args:
        condition: condition of the settings.
        data: training data.
        folder: the prior's run, whose own copy takes precedence.
        init: run of the initial weights; its copy is used if the condition names no compressor.
    """
    kept = folder if (folder / TENSORS).exists() else None
    if condition is not None and condition.compressor and kept is None:
        model = load(Path(condition.compressor).expanduser())
        model.check_preprocessing(replace(data.preprocessing, channels=model.preprocessing.channels))
        return condition.with_compressor(model.compressor, identity(model))
    place = kept or (None if init is None else Path(init))
    before = None if place is None else load_prior(place).condition
    if condition is not None and isinstance(before, type(condition)) and before.network is not None:
        return condition.with_compressor(cast(Compressor, before.network), before.weights_hash)
    return condition


def load_prior(place: Path) -> Prior:
    """Load the prior of a run, or of a published file."""
    prior = load(place).prior
    if prior is None:
        raise UserError(f"{place} has no prior; give a run of `train prior`, or leave out --init")
    return prior


def load_weights(part: nn.Module, state: dict[str, Tensor], place: Path) -> None:
    """Load weights, all of which must fit."""
    expected = part.state_dict()
    wrong = sorted(expected.keys() ^ state.keys())
    wrong += [name for name in expected if name in state and expected[name].shape != state[name].shape]
    if wrong:
        raise UserError(
            f"the weights of {place} do not fit this {type(part).__name__}: {', '.join(wrong[:5])}"
        )
    part.load_state_dict(state)
