"""Shapes and types are checked at every call of a function in tests, by conftest.py."""

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from genstack.cli.parsing.words import unknown
from genstack.compressor.quantizers.nearest import nearest as nearest_rows
from genstack.data.batch import Batch
from genstack.layout import CodeLayout


def test_sizes_of_one_name_have_to_agree():
    assert nearest_rows(torch.randn(3, 5), torch.randn(7, 5)).shape == (3,)
    with pytest.raises(TypeCheckError, match="parameter 'rows'"):
        nearest_rows(torch.randn(3, 5), torch.randn(5, 7))


def test_functions_without_shapes_have_types():
    with pytest.raises(BeartypeCallHintViolation):
        unknown("number", 3, ["three"])


def test_dataclasses_have_types():
    with pytest.raises(BeartypeCallHintViolation):
        CodeLayout((16, 24), "6", ((2, 4),))


def test_sizes_of_a_dataclass_have_to_agree():
    with pytest.raises(TypeCheckError, match="parameter 'labels'"):
        Batch(torch.zeros(2, 3, 8, 8), torch.zeros(3, dtype=torch.int64), {})
