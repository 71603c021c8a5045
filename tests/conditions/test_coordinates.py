"""Coordinates: places of crops are told apart, and nonsense is refused."""

import pytest

from genstack.conditions import Coordinates
from genstack.inputs import DataInfo, Prompts

PLACES = Coordinates()


def test_nearby_coordinates_have_similar_embeddings():
    encoder = PLACES.embedding(32)
    crops = ((0.0, 0.0, 0.5, 0.5), (0.001, 0.0, 0.501, 0.5), (0.5, 0.5, 1.0, 1.0))
    tokens = encoder(PLACES.encode(PLACES.modality.select(Prompts(crops=crops), 3)))[:, 0]
    assert 0 < (tokens[0] - tokens[1]).norm() < 0.1 * (tokens[0] - tokens[2]).norm()


def test_values_are_a_flag_and_scaled_edges():
    inputs = PLACES.modality.select(Prompts(crops=((0.0, 0.25, 0.5, 1.0),)), 2)
    assert PLACES.encode(inputs).tolist() == [[1.0, -1.0, -0.5, 0.0, 1.0]] * 2
    assert PLACES.modality.describe(inputs) == [{"coordinates": "0,0.25,0.5,1"}] * 2


@pytest.mark.parametrize("crop", [(0.5, 0.0, 0.5, 1.0), (0.0, 0.0, 1.1, 1.0), (0.0, 0.9, 1.0, 0.1)])
def test_invalid_crops_are_rejected(crop):
    with pytest.raises(
        ValueError, match=r"invalid coordinates .* expected top,left,bottom,right from 0 to 1"
    ):
        PLACES.modality.select(Prompts(crops=(crop,)), 1)


def test_data_with_constant_crops_is_rejected():
    assert PLACES.fit(DataInfo(crops_vary=True)) == PLACES
    with pytest.raises(ValueError, match="cropped at the same place"):
        PLACES.fit(DataInfo())
    with pytest.raises(ValueError, match="frequencies must be from 1 to 16, got 0"):
        Coordinates(frequencies=0)
