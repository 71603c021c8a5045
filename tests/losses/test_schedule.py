"""Steps and shares of a run."""

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
def test_steps_accepts_numbers_and_shares(amount, total, truth):
    assert steps(amount, total) == truth


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 10**9))
def test_steps_grow_with_the_share(one, other, total):
    assert (one <= other) <= (steps(f"{one}%", total) <= steps(f"{other}%", total))


@pytest.mark.parametrize("amount", [-1, "-5%", "101%", "half", "3.5", "%", "nan%", "inf%", ""])
def test_invalid_amounts_are_rejected(amount):
    with pytest.raises(ValueError, match="expected a number of steps or a share"):
        steps(amount, 100)


def test_share_of_an_endless_run_is_rejected():
    with pytest.raises(ValueError, match="invalid 30% of an endless run"):
        steps("30%", -1)
