"""The split: stable, near the share asked for, never empty."""

import numpy as np
import pytest

from genstack.data.split import Complement, Indices, hash_key, hash_keys, split
from genstack.errors import UserError

KEYS = [f"class {i % 7}/{i}.png" for i in range(3001)]


def test_split_covers_every_image_once():
    sides = split(hash_keys(KEYS), 0.1)
    assert sorted([*sides.training, *sides.validation]) == list(range(len(KEYS)))


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_validation_share_is_approximate(share):
    assert abs(len(split(hash_keys(KEYS), share).validation) / len(KEYS) - share) < 0.02


def test_added_files_do_not_move_others():
    few = {KEYS[i] for i in split(hash_keys(KEYS[:1000]), 0.1).validation}
    more = KEYS[500:] + KEYS[:500]
    many = {more[i] for i in split(hash_keys(more), 0.1).validation}
    assert many & set(KEYS[:1000]) == few


@pytest.mark.parametrize("share", [0.0, 0.05, 0.99])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_each_side_has_an_image(share, count):
    for first in range(0, 300, count):
        sides = split(hash_keys(KEYS[first : first + count]), share)
        assert sides.training and sides.validation


def test_a_single_image_is_on_both_sides_with_a_warning():
    with pytest.warns(UserWarning, match="only one image"):
        sides = split(hash_keys(["a.png"]), 0.1)
    assert list(sides.training) == list(sides.validation) == [0]
    assert sides.images == 1


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_invalid_shares_are_rejected(share):
    with pytest.raises(UserError, match="validation"):
        split(hash_keys(KEYS), share)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9, 0.999])
@pytest.mark.parametrize("count", [2, 3, 40, 3001])
def test_split_agrees_with_sorted_list(share, count, monkeypatch):
    """By brute force, whatever the size of the blocks: the lowest places, one at least, and not all."""
    monkeypatch.setattr("genstack.data.split.BLOCK", 7)
    lowest = sorted(range(count), key=lambda number: hash_key(KEYS[number]))
    wanted = min(max(sum(hash_key(key) < share for key in KEYS[:count]), 1), count - 1)
    sides = split(hash_keys(KEYS[:count]), share)
    assert list(sides.validation) == sorted(lowest[:wanted])
    assert list(sides.training) == sorted(lowest[wanted:])
    assert sides.images == count


@pytest.mark.parametrize("chosen", [[0], [3, 4, 9], [0, 1, 2, 10], [10], list(range(1, 11))])
def test_complement_is_a_sequence(chosen):
    whole = [number for number in range(11) if number not in chosen]
    others = Complement(11, Indices(np.array(chosen)))
    assert list(others) == whole and len(others) == len(whole)
    assert [others[index] for index in range(-len(whole), len(whole))] == [*whole, *whole]
    for part in (slice(None), slice(2), slice(1, None, 2), slice(-3, None), slice(4, 100)):
        assert list(others[part]) == whole[part]
    with pytest.raises(IndexError):
        others[len(whole)]


def test_a_million_images_take_a_byte_each():
    """Numbers, not names: the few laid aside, and how many others lie before them."""
    sides = split((np.random.default_rng(0).random(10**5) for _ in range(10)), 0.05)
    assert len(sides.training) + len(sides.validation) == 10**6
    assert sides.training.before.nbytes + sides.validation.numbers.nbytes < 10**6
