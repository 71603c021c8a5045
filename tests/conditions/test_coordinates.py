"""Coordinates: places of crops are told apart, and nonsense is refused."""

import pytest

from genstack.conditions import Coordinates
from genstack.inputs import DataInfo, Prompts

PLACES = Coordinates()


def test_places_are_told_apart_and_near_ones_are_near():
    encoder = PLACES.embedding(32)
    crops = ((0.0, 0.0, 0.5, 0.5), (0.001, 0.0, 0.501, 0.5), (0.5, 0.5, 1.0, 1.0))
    tokens = encoder(PLACES.values(PLACES.choose(Prompts(crops=crops), 3)))[:, 0]
    assert 0 < (tokens[0] - tokens[1]).norm() < 0.1 * (tokens[0] - tokens[2]).norm()


def test_values_run_from_minus_one_to_one_behind_a_one():
    facts = PLACES.choose(Prompts(crops=((0.0, 0.25, 0.5, 1.0),)), 2)
    assert PLACES.values(facts).tolist() == [[1.0, -1.0, -0.5, 0.0, 1.0]] * 2
    assert PLACES.tell(facts) == [{"coordinates": "0,0.25,0.5,1"}] * 2


@pytest.mark.parametrize("crop", [(0.5, 0.0, 0.5, 1.0), (0.0, 0.0, 1.1, 1.0), (0.0, 0.9, 1.0, 0.1)])
def test_what_is_no_crop_is_refused(crop):
    with pytest.raises(ValueError, match="are no crop; give top,left,bottom,right from 0 to 1"):
        PLACES.choose(Prompts(crops=(crop,)), 1)


def test_data_whose_crops_never_differ_is_refused():
    assert PLACES.of(DataInfo(crops_vary=True)) == PLACES
    with pytest.raises(ValueError, match="cut from the same place"):
        PLACES.of(DataInfo())
    with pytest.raises(ValueError, match="frequencies 0 are out of range"):
        Coordinates(frequencies=0)
