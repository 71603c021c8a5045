"""Class labels and nothing: what users ask for becomes labels, and a share of training sees none."""

import re

import pytest
import torch

from genstack.conditions import ClassLabels, Unconditional
from genstack.inputs import ConditionInputs, DataInfo, Prompts

ANIMALS = ClassLabels(("cat", "dog", "#0"))


def labels(condition, classes, count):
    return condition.choose(Prompts(classes), count).labels.tolist()


def test_classes_are_chosen_by_name_and_by_label_in_turn():
    assert labels(ANIMALS, ("dog", "#2"), 5) == [1, 2, 1, 2, 1]
    assert labels(ANIMALS, (), 5) == [0, 1, 2, 0, 1]
    assert labels(ANIMALS, ("#0",), 2) == [2, 2], "a name comes before a label"
    assert labels(Unconditional(), (), 3) == [0, 0, 0]


def test_all_classes_are_shown_in_training_and_told_by_name():
    facts = ANIMALS.shown(ConditionInputs(torch.tensor([1, 1, 1, 1])))
    assert ANIMALS.tell(facts) == [{"class": name} for name in ("cat", "dog", "#0", "cat")]
    assert Unconditional().tell(Unconditional().shown(facts)) == [{}] * 4


@pytest.mark.parametrize(
    ("name", "hint"),
    [("dgo", "did you mean dog?"), ("#3", "#0 to #2"), ("whale", "the classes are cat, dog")],
)
def test_an_unknown_class_is_refused_with_the_nearest(name, hint):
    with pytest.raises(ValueError, match=f"class {name} is unknown.*{re.escape(hint)}"):
        labels(ANIMALS, (name,), 1)


@pytest.mark.parametrize(
    ("condition", "wishes", "message"),
    [
        (
            Unconditional(),
            Prompts(("cat",)),
            "classes were asked for.*without a condition; leave out --classes",
        ),
        (Unconditional(), Prompts(captions=("a",)), "captions were asked for.*leave out --caption and"),
        (ANIMALS, Prompts(crops=((0.0, 0.0, 1.0, 1.0),)), "on class labels; leave out --coordinates"),
        (ANIMALS, Prompts(images=torch.zeros(1, 3, 4, 5)), "leave out --condition-images"),
    ],
)
def test_what_a_prior_was_not_trained_on_is_refused(condition, wishes, message):
    with pytest.raises(ValueError, match=message):
        condition.choose(wishes, 1)


def test_names_come_from_the_data():
    assert ClassLabels(dropout=0.3).of(DataInfo(("a", "b"))) == ClassLabels(("a", "b"), 0.3)
    assert ANIMALS.of(DataInfo(ANIMALS.names)) == ANIMALS
    assert Unconditional().of(DataInfo(("a",))) == Unconditional()
    with pytest.raises(ValueError, match="no class labels"):
        ClassLabels().of(DataInfo())
    with pytest.raises(ValueError, match="leave `names` out"):
        ANIMALS.of(DataInfo(("a", "b")))


def test_a_share_of_labels_becomes_null():
    values = torch.arange(3).repeat(4000)
    dropped = ClassLabels(ANIMALS.names, dropout=0.2).drop(values) != values
    assert abs(dropped.float().mean() - 0.2) < 5 * (0.2 * 0.8 / 12_000) ** 0.5
    null = ClassLabels(ANIMALS.names, dropout=0.2).null(values)
    assert null.unique().tolist() == [3]
    assert torch.equal(ClassLabels(ANIMALS.names, dropout=0.0).drop(values), values)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(dropout):
    with pytest.raises(ValueError, match=f"dropout {dropout} is out of range"):
        ClassLabels(("a",), dropout)


def test_classes_without_a_training_image_are_sampled_only_by_name():
    condition = ClassLabels().of(DataInfo(("a", "b", "c"), untrained=(1,)))
    assert condition.choose(Prompts(), 5).labels.tolist() == [0, 2, 0, 2, 0]
    assert condition.shown(ConditionInputs.nothing(3)).labels.tolist() == [0, 2, 0]
    assert condition.choose(Prompts(classes=("b",)), 2).labels.tolist() == [1, 1]
    assert ClassLabels(("a", "b"), untrained=(0, 1)).choose(Prompts(), 2).labels.tolist() == [0, 1]
