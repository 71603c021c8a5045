"""Laws of conditions."""

import inspect
from dataclasses import replace
from typing import Any

import torch

from genstack.conditions import Condition, Unconditional
from genstack.description import build as build_described
from genstack.description import describe, part_classes
from genstack.inputs import DataInfo, Prompts
from genstack.testing.condition_inputs import CAPTIONS, CROPS, inputs
from genstack.testing.expect import build, refusal

DATA = DataInfo(
    ("low", "high"), lambda: [*CAPTIONS, "a low and a high tone"] * 20, (3, 16, 24), crops_vary=True
)
EVERYTHING = Prompts(("low",), CAPTIONS, torch.zeros(1, 3, 16, 24), ("a.png",), CROPS)


def make(part: type[Condition], **given: Any) -> Condition:
    """Build the condition, and fit it to data of two classes."""
    return build(part, **given).fit(DATA)


def condition_is_plain_data(condition: Condition) -> None:
    """A description builds an equal condition."""
    if part_classes().get(type(condition).__name__) is not type(condition):
        return  # its file is not in use as a plugin here
    again = build_described(describe(condition))
    assert again == condition and hash(again) == hash(condition)


def values_become_tokens(condition: Condition) -> None:
    """The embedding turns values into `length` vectors of the width of the prior."""
    values = condition.encode(inputs(5))
    tokens = condition.embedding(16)(values)
    assert len(values) == 5 and tokens.shape == (5, condition.length, 16)


def values_do_not_depend_on_the_batch(condition: Condition) -> None:
    """An image has the same values alone and in a batch."""
    together = condition.encode(inputs(5))
    for index in range(5):
        assert torch.equal(condition.encode(inputs(5)[[index]])[0], together[index])


def values_are_on_the_device_of_the_inputs(condition: Condition) -> None:
    """Inputs on a device give values there."""
    if condition.network is None:  # a network computes values, and the device of this test computes nothing
        assert condition.encode(inputs(2).to("meta")).device.type == "meta"


def dropout_makes_null(condition: Condition) -> None:
    """The null condition has the shape and type of values, differs from them, and is what dropout gives."""
    values = condition.encode(inputs(4))
    null = condition.null(values)
    assert null.shape == values.shape and null.dtype == values.dtype
    if condition.dropout == 0:
        assert isinstance(condition, Unconditional)
        return
    assert not torch.equal(null, values)
    assert torch.equal(replace(condition, dropout=0.999999).drop(values), null)  # type: ignore[type-var]


def no_prompts_are_null(condition: Condition) -> None:
    """Without prompts the condition is null, if it learned null. Classes are drawn in turn instead."""
    if "ClassLabels" in type(condition).__name__:
        return
    nothing = condition.modality.select(Prompts(), 3)
    values = condition.encode(nothing)
    assert len(values) == len(condition.modality.describe(nothing)) == 3
    assert values.dtype == condition.encode(inputs(3)).dtype
    assert torch.equal(values, condition.null(values))
    if condition.dropout:
        with refusal("was trained without dropout and needs"):
            replace(condition, dropout=0.0).modality.select(Prompts(), 3)  # type: ignore[type-var]


def prompts_are_cycled_and_other_kinds_refused(condition: Condition) -> None:
    """It reads one kind of prompt, in turn for any number of images."""
    with refusal("this prior was trained .* and does not read"):
        condition.modality.select(EVERYTHING, 5)
    met = 0
    for name in ("classes", "captions", "images", "crops"):
        only = Prompts(**{name: getattr(EVERYTHING, name)})
        try:
            chosen = condition.modality.select(only, 5)
        except ValueError:
            continue
        met += 1
        assert len(chosen) == 5 and len(condition.modality.describe(chosen)) == 5
        assert torch.equal(condition.encode(chosen[[4]]), condition.encode(chosen)[[4]])
    assert met == bool(condition.modality.kind)


def padding_never_covers_a_whole_condition(condition: Condition) -> None:
    """At least one token of each image can be read."""
    mask = condition.padding_mask(condition.encode(inputs(5)))
    assert mask is None or (mask.shape == (5, condition.length) and not mask.all(dim=1).any())


def previews_can_be_described(condition: Condition) -> None:
    """The inputs of preview pictures encode, and have a description in words."""
    shown = condition.modality.preview(inputs(3))
    assert len(shown) == 3 and condition.encode(shown).shape == condition.encode(inputs(3)).shape
    described = condition.modality.describe(shown)
    assert all(isinstance(word, str) for entry in described for word in entry.values())


def invalid_dropout_is_refused(condition: Condition) -> None:
    """Dropout is at least 0 and below 1."""
    if "dropout" not in inspect.signature(type(condition)).parameters:
        return
    for dropout in (-0.1, 1.0):
        with refusal(f"dropout must be at least 0 and below 1, got {dropout}"):
            replace(condition, dropout=dropout)  # type: ignore[type-var]


def gradients_reach_every_parameter(condition: Condition) -> None:
    """Values and null together train the whole embedding."""
    values = condition.encode(inputs(6))
    embedding = condition.embedding(16)
    tokens = torch.cat([embedding(values), embedding(condition.null(values))])
    (tokens * torch.randn_like(tokens)).sum().backward()
    for name, parameter in embedding.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
