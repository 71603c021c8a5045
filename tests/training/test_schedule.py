"""Intervals of validation."""

import pytest

from genstack.training.run import Schedule


@pytest.mark.parametrize(
    ("every", "total", "interval"),
    [
        ("2%", 10_000, 200),
        ("2%", 500, 20),
        ("2%", 100, 10),
        ("2%", 7, 1),
        ("10%", 70, 7),
        ("50%", 30, 15),
        ("100%", 3, 3),
        (1, 1000, 1),
        (700, 30, 30),
    ],
)
def test_share_of_a_short_run_has_a_minimum_interval(every, total, interval):
    assert Schedule(max_steps=total, validate_every=every).interval == interval
