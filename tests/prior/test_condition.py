"""Conditions: what users ask for becomes labels, and a share of training sees none."""

import re

import pytest
import torch

from genstack.prior import ClassLabels, Unconditional

ANIMALS = ClassLabels(("cat", "dog", "#0"))


def test_classes_are_chosen_by_name_and_by_label_in_turn():
    assert ANIMALS.choose(("dog", "#2"), 5).tolist() == [1, 2, 1, 2, 1]
    assert ANIMALS.choose((), 5).tolist() == [0, 1, 2, 0, 1]
    assert ANIMALS.choose(("#0",), 2).tolist() == [2, 2], "a name comes before a label"
    assert Unconditional().choose((), 3).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("dgo", "did you mean dog?"), ("#3", "#0 to #2"), ("whale", "the classes are cat, dog")],
)
def test_an_unknown_class_is_refused_with_the_nearest(name, hint):
    with pytest.raises(ValueError, match=f"class {name} is unknown.*{re.escape(hint)}"):
        ANIMALS.choose((name,), 1)


def test_classes_of_a_prior_without_are_refused():
    with pytest.raises(ValueError, match="trained without classes"):
        Unconditional().choose(("cat",), 1)


def test_names_come_from_the_data():
    assert ClassLabels(dropout=0.3).of(("a", "b")) == ClassLabels(("a", "b"), 0.3)
    assert ANIMALS.of(ANIMALS.names) == ANIMALS
    assert Unconditional().of(("a",)) == Unconditional()
    with pytest.raises(ValueError, match="no class labels"):
        ClassLabels().of(())
    with pytest.raises(ValueError, match="leave `names` out"):
        ANIMALS.of(("a", "b"))


def test_a_share_of_labels_becomes_null():
    labels = torch.arange(3).repeat(4000)
    dropped = ClassLabels(ANIMALS.names, dropout=0.2).drop(labels) != labels
    assert abs(dropped.float().mean() - 0.2) < 5 * (0.2 * 0.8 / 12_000) ** 0.5
    null = ClassLabels(ANIMALS.names, dropout=0.2).null(labels)
    assert null.unique().tolist() == [3]
    assert torch.equal(ClassLabels(ANIMALS.names, dropout=0.0).drop(labels), labels)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(dropout):
    with pytest.raises(ValueError, match=f"dropout {dropout} is out of range"):
        ClassLabels(("a",), dropout)
