"""Views: the first is what validation sees, corners lie in corners, mirror images are mirrored."""

import pytest
import torch

from genstack.data.codes.views import VIEWS, View
from genstack.data.transforms import Augmentation
from genstack.errors import UserError

SIZES = [((21, 30), (8, 12)), ((40, 17), (9, 9))]


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize(("sides", "size"), SIZES)
def test_first_view_is_used_in_validation(name, sides, size):
    image = torch.rand(3, *sides) * 2 - 1
    as_is = Augmentation()
    assert torch.equal(VIEWS[name][0](image, size), as_is(image, size, 0, 0, 0))
    assert VIEWS[name][0].edges(sides, size) == as_is.edges(sides, size, 0, 0, 0)


def test_numbers_of_views():
    assert {name: len(set(views)) for name, views in VIEWS.items()} == {
        "center": 1,
        "flip": 2,
        "ten-crop": 10,
    }


@pytest.mark.parametrize(("sides", "size"), SIZES)
def test_views_agree_with_their_edges(sides, size):
    """Of a picture whose values are its coordinates, the middle of a view is the middle of its edges."""
    rows, columns = ((torch.arange(side) + 0.5) / side for side in sides)
    image = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    for view in VIEWS["ten-crop"]:
        top, left, bottom, right = view.edges(sides, size)
        row, column = view(image, size).mean((1, 2)).tolist()
        seen = 1 - column if view.mirrored else column  # edges are those in the mirror image
        assert row == pytest.approx((top + bottom) / 2, abs=0.02)
        assert seen == pytest.approx((left + right) / 2, abs=0.02)


def test_corner_views_touch_the_corners():
    corners = {(view.edges((22, 22), (20, 20))) for view in VIEWS["ten-crop"][1:5]}
    starts = {(top > 0, left > 0) for top, left, _, _ in corners}
    assert starts == {(False, False), (False, True), (True, False), (True, True)}
    assert all(bottom - top == pytest.approx(20 / 22) for top, _, bottom, _ in corners)


@pytest.mark.parametrize("zoom", [0.5, float("nan"), 1e9])
def test_invalid_views_are_rejected(zoom):
    with pytest.raises(UserError, match="invalid crop"):
        View(zoom)
