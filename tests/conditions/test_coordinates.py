"""Coordinates: places of crops are told apart, and nonsense is refused."""

import pytest

from genstack.conditions import Coordinates
from genstack.inputs import DataInfo, Prompts

PLACES = Coordinates()


def test_places_are_told_apart_and_near_ones_are_near():
    encoder = PLACES.embedding(32)
    crops = ((0.0, 0.0, 0.5, 0.5), (0.001, 0.0, 0.501, 0.5), (0.5, 0.5, 1.0, 1.0))
    tokens = encoder(PLACES.encode(PLACES.modality.select(Prompts(crops=crops), 3)))[:, 0]
    assert 0 < (tokens[0] - tokens[1]).norm() < 0.1 * (tokens[0] - tokens[2]).norm()


def test_values_run_from_minus_one_to_one_behind_a_one():
    inputs = PLACES.modality.select(Prompts(crops=((0.0, 0.25, 0.5, 1.0),)), 2)
    assert PLACES.encode(inputs).tolist() == [[1.0, -1.0, -0.5, 0.0, 1.0]] * 2
    assert PLACES.modality.describe(inputs) == [{"coordinates": "0,0.25,0.5,1"}] * 2


@pytest.mark.parametrize("crop", [(0.5, 0.0, 0.5, 1.0), (0.0, 0.0, 1.1, 1.0), (0.0, 0.9, 1.0, 0.1)])
def test_what_is_no_crop_is_refused(crop):
    with pytest.raises(
        ValueError, match=r"invalid coordinates .* expected top,left,bottom,right from 0 to 1"
    ):
        PLACES.modality.select(Prompts(crops=(crop,)), 1)


def test_data_whose_crops_never_differ_is_refused():
    assert PLACES.fit(DataInfo(crops_vary=True)) == PLACES
    with pytest.raises(ValueError, match="cropped at the same place"):
        PLACES.fit(DataInfo())
    with pytest.raises(ValueError, match="frequencies must be from 1 to 16, got 0"):
        Coordinates(frequencies=0)
