"""The split: stable, near the share asked for, never empty."""

import pytest

from genstack.data.split import split
from genstack.errors import UserError

KEYS = [f"class {i % 7}/{i}.png" for i in range(3001)]


def test_both_sides_together_are_everything_once():
    sides = split(KEYS, 0.1)
    assert sorted(sides.training + sides.validation) == list(range(len(KEYS)))


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_the_share_is_near(share):
    assert abs(len(split(KEYS, share).validation) / len(KEYS) - share) < 0.02


def test_added_files_move_no_others():
    few = {KEYS[i] for i in split(KEYS[:1000], 0.1).validation}
    more = KEYS[500:] + KEYS[:500]
    many = {more[i] for i in split(more, 0.1).validation}
    assert many & set(KEYS[:1000]) == few


@pytest.mark.parametrize("share", [0.0, 0.05, 0.99])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_each_side_has_an_image(share, count):
    for first in range(0, 300, count):
        sides = split(KEYS[first : first + count], share)
        assert sides.training and sides.validation


def test_a_single_image_is_on_both_sides_with_a_warning():
    with pytest.warns(UserWarning, match="one image"):
        sides = split(["a.png"], 0.1)
    assert sides.training == sides.validation == (0,)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_impossible_shares_are_refused(share):
    with pytest.raises(UserError, match="validation"):
        split(KEYS, share)
