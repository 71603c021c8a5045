"""Moments of a run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genstack.losses.schedule import steps


@pytest.mark.parametrize(
    ("amount", "total", "truth"),
    [
        (0, 10, 0),
        (700, 10, 700),
        ("700", -1, 700),
        ("30%", 1000, 300),
        ("12.5%", 80, 10),
        ("100%", 7, 7),
        (" 0% ", 7, 0),
    ],
)
def test_is_a_number_of_steps_or_a_share(amount, total, truth):
    assert steps(amount, total) == truth


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 10**9))
def test_a_larger_share_comes_no_earlier(one, other, total):
    assert (one <= other) <= (steps(f"{one}%", total) <= steps(f"{other}%", total))


@pytest.mark.parametrize("amount", [-1, "-5%", "101%", "half", "3.5", "%", "nan%", "inf%", ""])
def test_refuses_anything_else(amount):
    with pytest.raises(ValueError, match="expected a number of steps or a share"):
        steps(amount, 100)


def test_a_share_needs_a_run_with_an_end():
    with pytest.raises(ValueError, match="invalid 30% of a run without end"):
        steps("30%", -1)
