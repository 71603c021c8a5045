"""Small layouts and a small plan that the tests of priors share."""

import pytest

from genstack.layout import CodeLayout
from genstack.prior import Backbone

LAYOUTS = {
    "one grid": CodeLayout((24, 40), 11, ((3, 5),)),
    "two grids": CodeLayout((24, 32), 11, ((1, 2), (3, 4))),
    "depth 2": CodeLayout((16, 24), 11, ((2, 3),), depth=2),
    "one row": CodeLayout((32, 32), 11, ((1, 9),)),
}


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS.keys())
def layout(request) -> CodeLayout:
    return request.param


@pytest.fixture
def tiny() -> Backbone:
    return Backbone(width=24, depth=2, heads=3, dropout=0.0)
