"""Laws of the code layout: the flat order, and the way back."""

import pytest
import torch

from genstack.layout import CodeLayout

HIERARCHY = CodeLayout((20, 28), codebook_size=5, grids=((1, 2), (3, 2), (5, 7)), depth=3)


def in_order(layout):
    """(grid, row, column, depth) of every code, by the sentence that defines the order."""
    return [
        (grid, row, column, depth)
        for grid, (height, width) in enumerate(layout.grids)
        for row in range(height)
        for column in range(width)
        for depth in range(layout.depth)
    ]


def test_length_counts_all_codes():
    assert HIERARCHY.length == len(in_order(HIERARCHY)) == 129


def test_positions_follow_the_order():
    positions = HIERARCHY.positions()
    found = torch.stack([positions.grid, positions.row, positions.column, positions.depth], dim=1)
    assert found.tolist() == [list(place) for place in in_order(HIERARCHY)]


def test_split_puts_codes_at_their_positions():
    codes = torch.arange(2 * HIERARCHY.length).reshape(2, -1)
    grids = HIERARCHY.split(codes)
    for image in range(2):
        found = [
            int(grids[grid][image, row, column, depth]) for grid, row, column, depth in in_order(HIERARCHY)
        ]
        assert found == codes[image].tolist()


def test_join_inverts_split():
    codes = torch.randint(5, (3, HIERARCHY.length))
    assert torch.equal(HIERARCHY.join(HIERARCHY.split(codes)), codes)


def test_joint_codes_are_digits_of_one_number():
    layout = CodeLayout((2, 1), codebook_size=7, grids=((2, 1),), depth=2)
    assert layout.joint(torch.tensor([[3, 6, 0, 1]])).tolist() == [[3 + 7 * 6, 0 + 7 * 1]]


def test_joint_codes_are_unique():
    layout = CodeLayout((1, 1), codebook_size=3, grids=((1, 1),), depth=4)
    codes = torch.cartesian_prod(*[torch.arange(3)] * 4)
    assert sorted(layout.joint(codes).flatten().tolist()) == list(range(3**4))


def test_joint_codes_too_large_for_an_integer_are_refused():
    layout = CodeLayout((1, 1), codebook_size=2**16, grids=((1, 1),), depth=4)
    with pytest.raises(ValueError, match="65536 "):
        layout.joint(torch.zeros(1, 4, dtype=torch.int64))


def test_wrong_numbers_of_codes_are_refused():
    with pytest.raises(ValueError, match="128 codes do not fit a layout of 129"):
        HIERARCHY.split(torch.zeros(1, 128, dtype=torch.int64))


def test_wrong_grids_are_refused():
    grids = HIERARCHY.split(torch.zeros(1, 129, dtype=torch.int64))
    with pytest.raises(ValueError, match="do not fit"):
        HIERARCHY.join(grids[::-1])


@pytest.mark.parametrize("wrong", [{"grids": ()}, {"grids": ((2, 0),)}, {"depth": 0}, {"codebook_size": 0}])
def test_empty_layouts_are_refused(wrong):
    sizes = {"image_size": (4, 4), "codebook_size": 2, "grids": ((2, 2),), "depth": 1}
    with pytest.raises(ValueError, match="at least 1"):
        CodeLayout(**{**sizes, **wrong})
