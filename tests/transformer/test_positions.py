"""Shared coordinates, rotations that see differences alone, embeddings that tell grids and depths apart."""

import pytest
import torch

from genstack.layout import CodeLayout
from genstack.transformer.positions import PositionEmbedding, Rotary, coordinates


def test_one_grid_counts_rows_and_columns():
    layout = CodeLayout((24, 40), 5, ((3, 5),), depth=2)
    positions = layout.positions()
    torch.testing.assert_close(
        coordinates(layout), torch.stack([positions.row, positions.column], 1).float(), atol=1e-6, rtol=0
    )


def test_a_coarse_code_lies_in_the_middle_of_the_fine_ones_it_covers():
    layout = CodeLayout((32, 48), 5, ((2, 3), (4, 6)))
    coarse, fine = coordinates(layout)[:6], coordinates(layout)[6:].unflatten(0, (4, 6))
    covered = fine.unfold(0, 2, 2).unfold(1, 2, 2).mean((-1, -2))
    torch.testing.assert_close(coarse.unflatten(0, (2, 3)), covered, atol=1e-6, rtol=0)


def test_tokens_without_position_are_not_rotated():
    heads = torch.randn(2, 3, 4, 8)
    layout = CodeLayout((32, 48), 5, ((2, 3), (4, 6)))
    assert torch.equal(Rotary(layout, 8)(torch.full((4,), layout.length))(heads), heads)


def test_rotation_agrees_with_complex_numbers():
    layout, head_width = CodeLayout((24, 40), 5, ((3, 5),)), 8
    heads = torch.randn(1, 1, 15, head_width, dtype=torch.float64)
    angles = torch.tensor(
        [[place // 5 * 1.0, place // 5 * 0.01, place % 5 * 1.0, place % 5 * 0.01] for place in range(15)],
        dtype=torch.float64,
    )
    planes = torch.complex(heads[..., :4], heads[..., 4:]) * torch.polar(torch.ones_like(angles), angles)
    turned = Rotary(layout, head_width)(torch.arange(15))(heads.float())
    torch.testing.assert_close(turned, torch.cat([planes.real, planes.imag], -1).float(), atol=1e-5, rtol=0)


def test_products_depend_only_on_relative_positions():
    rotary = Rotary(CodeLayout((40, 56), 5, ((5, 7),)), 12)
    query, key = torch.randn(2, 1, 1, 1, 12)

    def product(first: int, second: int) -> torch.Tensor:
        return (rotary(torch.tensor([first]))(query) * rotary(torch.tensor([second]))(key)).sum()

    here = product(1 * 7 + 2, 3 * 7 + 4)
    torch.testing.assert_close(here, product(0 * 7 + 1, 2 * 7 + 3), atol=1e-5, rtol=0)
    for other in (1 * 7 + 4, 3 * 7 + 2):  # as far along one axis, elsewhere along the other
        assert (here - product(0 * 7 + 1, other)).abs() > 1e-3


def test_each_image_may_have_its_own_order():
    rotary, heads = Rotary(CodeLayout((40, 56), 5, ((5, 7),)), 8), torch.randn(2, 3, 4, 8)
    orders = torch.tensor([[3, 1, 20, 35], [0, 34, 2, 7]])
    together = rotary(orders)(heads)
    for image in range(2):
        assert torch.equal(together[image : image + 1], rotary(orders[image])(heads[image : image + 1]))


@pytest.mark.parametrize(
    ("grids", "depth", "absolute", "distinct"),
    [
        (((3, 5),), 1, False, 1),
        (((2, 3), (4, 6)), 1, False, 2),
        (((3, 5),), 2, False, 2),
        (((1, 2), (2, 3)), 3, False, 6),
        (((3, 5),), 1, True, 15),
        (((3, 5),), 2, True, 30),
    ],
)
def test_embeddings_distinguish_grids_and_depths(grids, depth, absolute, distinct):
    layout = CodeLayout((32, 48), 5, grids, depth)
    embedding = PositionEmbedding(layout, 6, absolute)
    added = embedding(torch.zeros(1, layout.length, 6), torch.arange(layout.length))[0]
    assert len(added.unique(dim=0)) == distinct


def test_embeddings_follow_grid_and_depth():
    layout = CodeLayout((32, 48), 5, ((1, 2), (2, 3)), depth=2)
    embedding, positions = PositionEmbedding(layout, 6), layout.positions()
    added = embedding(torch.zeros(1, layout.length, 6), torch.arange(layout.length))[0]
    for i in range(layout.length):
        for j in range(layout.length):
            same = positions.grid[i] == positions.grid[j] and positions.depth[i] == positions.depth[j]
            assert torch.equal(added[i], added[j]) == bool(same)
