"""Neighbors above the predicted code, by a brute-force search of the layout."""

import pytest
import torch

from genstack.layout import CodeLayout
from genstack.transformer.neighbors import COLUMNS, NeighborEmbedding


@pytest.mark.parametrize(
    "layout",
    [
        CodeLayout((24, 40), 11, ((3, 5),)),
        CodeLayout((8, 8), 6, ((2, 1), (2, 3))),
        CodeLayout((8, 8), 5, ((3, 2),), 2),
    ],
)
def test_neighbors_lie_in_the_row_above_of_the_same_grid_and_depth(layout):
    embedding, places = NeighborEmbedding(layout, 4), layout.positions()
    vectors = torch.randn(2, 1 + layout.length, 4)
    vectors[:, 0] = 0
    tokens = torch.zeros(2, layout.length + 1, 4)
    found = embedding(tokens, torch.arange(layout.length + 1), vectors)
    kept = list(
        zip(*(getattr(places, name).tolist() for name in ("grid", "row", "column", "depth")), strict=True)
    )
    for target, (grid, row, column, depth) in enumerate(kept):
        expected = torch.zeros(2, 4)
        for shift, layer in zip(COLUMNS, embedding.layers, strict=True):
            above = (grid, row - 1, column + shift, depth)
            if above in kept:
                assert kept.index(above) < target
                expected = expected + layer(vectors[:, 1 + kept.index(above)])
        torch.testing.assert_close(found[:, target], expected)
    assert not found[:, -1].any(), "a token without a target has no neighbors"
