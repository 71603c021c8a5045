"""Class labels and nothing: what users ask for becomes labels, and a share of training sees none."""

import re

import pytest
import torch

from genstack.conditions import ClassLabels, Unconditional
from genstack.inputs import ConditionInputs, DataInfo, Prompts

ANIMALS = ClassLabels(("cat", "dog", "#0"))


def labels(condition, classes, count):
    return condition.modality.select(Prompts(classes), count).labels.tolist()


def test_classes_are_chosen_by_name_and_by_label_in_turn():
    assert labels(ANIMALS, ("dog", "#2"), 5) == [1, 2, 1, 2, 1]
    assert labels(ANIMALS, (), 5) == [0, 1, 2, 0, 1]
    assert labels(ANIMALS, ("#0",), 2) == [2, 2], "a name comes before a label"
    assert labels(Unconditional(), (), 3) == [0, 0, 0]


def test_previews_show_all_classes_by_name():
    inputs = ANIMALS.modality.preview(ConditionInputs(torch.tensor([1, 1, 1, 1])))
    assert ANIMALS.modality.describe(inputs) == [{"class": name} for name in ("cat", "dog", "#0", "cat")]
    assert Unconditional().modality.describe(Unconditional().modality.preview(inputs)) == [{}] * 4


@pytest.mark.parametrize(
    ("name", "hint"),
    [("dgo", "did you mean 'dog'?"), ("#3", "#0 to #2"), ("whale", "the classes are cat, dog")],
)
def test_an_unknown_class_is_refused_with_the_nearest(name, hint):
    with pytest.raises(ValueError, match=f"unknown class '{name}'.*{re.escape(hint)}"):
        labels(ANIMALS, (name,), 1)


@pytest.mark.parametrize(
    ("condition", "prompts", "message"),
    [
        (
            Unconditional(),
            Prompts(("cat",)),
            "trained without a condition and does not read classes",
        ),
        (Unconditional(), Prompts(captions=("a",)), "trained without a condition and does not read captions"),
        (ANIMALS, Prompts(crops=((0.0, 0.0, 1.0, 1.0),)), "trained on classes and does not read coordinates"),
        (ANIMALS, Prompts(images=torch.zeros(1, 3, 4, 5)), "does not read condition images"),
    ],
)
def test_prompts_of_other_kinds_are_rejected(condition, prompts, message):
    with pytest.raises(ValueError, match=message):
        condition.modality.select(prompts, 1)


def test_names_come_from_the_data():
    assert ClassLabels(dropout=0.3).fit(DataInfo(("a", "b"))) == ClassLabels(("a", "b"), 0.3)
    assert ANIMALS.fit(DataInfo(ANIMALS.names)) == ANIMALS
    assert Unconditional().fit(DataInfo(("a",))) == Unconditional()
    with pytest.raises(ValueError, match="no class labels"):
        ClassLabels().fit(DataInfo())
    with pytest.raises(ValueError, match="leave `names` out"):
        ANIMALS.fit(DataInfo(("a", "b")))


def test_dropout_replaces_labels_by_null():
    values = torch.arange(3).repeat(4000)
    dropped = ClassLabels(ANIMALS.names, dropout=0.2).drop(values) != values
    assert abs(dropped.float().mean() - 0.2) < 5 * (0.2 * 0.8 / 12_000) ** 0.5
    null = ClassLabels(ANIMALS.names, dropout=0.2).null(values)
    assert null.unique().tolist() == [3]
    assert torch.equal(ClassLabels(ANIMALS.names, dropout=0.0).drop(values), values)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_invalid_dropout_of_labels_is_rejected(dropout):
    with pytest.raises(ValueError, match=f"dropout must be at least 0 and below 1, got {dropout}"):
        ClassLabels(("a",), dropout)


def test_classes_without_a_training_image_are_sampled_only_by_name():
    condition = ClassLabels().fit(DataInfo(("a", "b", "c"), untrained=(1,)))
    assert condition.modality.select(Prompts(), 5).labels.tolist() == [0, 2, 0, 2, 0]
    assert condition.modality.preview(ConditionInputs.nothing(3)).labels.tolist() == [0, 2, 0]
    assert condition.modality.select(Prompts(classes=("b",)), 2).labels.tolist() == [1, 1]
    assert ClassLabels(("a", "b"), untrained=(0, 1)).modality.select(Prompts(), 2).labels.tolist() == [0, 1]
