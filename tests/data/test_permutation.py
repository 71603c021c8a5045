"""Permutations that are computed: each number once, any part alone, and no order to be seen."""

import numpy as np
import pytest

from genstack.data.permutation import Permutation


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 1000, 65537])
def test_permutations_contain_each_number_once(count):
    assert sorted(Permutation(count, 3)[:].tolist()) == list(range(count))


@pytest.mark.parametrize("part", [slice(0, 5), slice(990, 1200), slice(10, 400, 7)])
def test_slices_agree_with_the_whole(part):
    assert Permutation(1000, 3)[part].tolist() == Permutation(1000, 3)[:].tolist()[part]


def test_billions_are_not_stored():
    some = Permutation(3 * 10**9, 1)[2 * 10**9 : 2 * 10**9 + 1000]
    assert len(set(some.tolist())) == 1000
    assert some.min() >= 0 and some.max() < 3 * 10**9


def test_orders_look_random():
    """Numbers are as even over places, and neighbours as independent, as chance has them (chi-square)."""
    count, cells = 200_000, 20
    for seed in range(5):
        numbers = Permutation(count, seed)[:]
        places = np.arange(count) * cells // count
        pairs = numbers[:-1] * cells // count * cells + numbers[1:] * cells // count
        for table in (places * cells + numbers * cells // count, pairs):
            counts = np.bincount(table, minlength=cells**2)
            expected = len(table) / cells**2
            chi = ((counts - expected) ** 2 / expected).sum()
            freedom = (cells - 1) ** 2
            assert abs(chi - freedom) < 5 * (2 * freedom) ** 0.5


def test_seeds_differ():
    first, second = Permutation(10_000, 1)[:], Permutation(10_000, 2)[:]
    assert (first == second).mean() < 0.01
