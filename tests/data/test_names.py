"""Many names in one text are the names that were given, whatever their letters."""

import pickle

import numpy as np
import pytest

from genstack.data.text import Names

GIVEN = ["a/1.png", "", "ü/画像 🎨.png", "no\udcff utf-8", "with\0zero", "a/1.png"]


def test_names_round_trip():
    names = Names(iter(GIVEN))
    assert len(names) == 6 and list(names) == GIVEN
    assert names[-1] == "a/1.png" and names[1:4] == GIVEN[1:4]
    assert list(pickle.loads(pickle.dumps(names))) == GIVEN, "as loaders send them to workers"
    assert not Names([]) and list(Names([])) == []


def test_index_out_of_range_raises():
    names = Names(GIVEN)
    for number in (6, -7):
        with pytest.raises(IndexError):
            names[number]


def test_names_take_eight_bytes_beside_their_letters():
    numbers = np.random.default_rng(0).integers(0, 10**9, 1000)
    given = [f"{number:09d}.jpg" for number in numbers]
    assert Names(given).nbytes == 8 * 1001 + 13 * 1000
