"""Receptive field of PixelSNAIL's layers by gradients; sampling row by row equals one pass."""

import pytest
import torch

from genstack.conditions import ClassLabels
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.pixelsnail import PixelSNAIL

CLASSES = ClassLabels(("a", "b", "c"), dropout=0.2)
LAYOUT = CodeLayout((32, 40), 5, ((4, 5),))


@pytest.fixture
def prior():
    """In double precision, with weights that hide nothing."""
    made = PixelSNAIL(LAYOUT, CLASSES, width=6, blocks=2, layers=1, heads=2).double().eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def test_positions_see_all_earlier_ones_and_no_others(prior):
    conditioning = torch.randn(1, 6, dtype=torch.float64)
    order = torch.arange(LAYOUT.length).reshape(4, 5)
    for index in range(LAYOUT.length):
        embedded = torch.randn(1, 6, 4, 5, dtype=torch.float64, requires_grad=True)
        logits = prior(embedded, conditioning)[0, index]
        (gradient,) = torch.autograd.grad(logits.square().sum(), embedded)
        assert torch.equal(gradient.abs().amax(dim=(0, 1)) > 0, order < index)


def test_invalid_layouts_and_sizes_are_rejected():
    for grids, depth in ((((2, 2), (4, 4)), 1), (((4, 4),), 2), (((1, 9),), 1)):
        with pytest.raises(UserError, match=r"one grid of several rows.*VectorQuantizer.*Autoregressive"):
            PixelSNAIL(CodeLayout((16, 16), 7, grids, depth), CLASSES)
    with pytest.raises(UserError, match=r"width must be a multiple of heads.* got width 10, heads 4"):
        PixelSNAIL(LAYOUT, CLASSES, width=10, heads=4)
