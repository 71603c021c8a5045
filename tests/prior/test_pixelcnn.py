"""Receptive field by gradients; sampling row by row agrees with one pass."""

import pytest
import torch

from genstack.conditions import ClassLabels
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior import Known, SamplingOptions, image_seeds
from genstack.prior.pixelcnn import GatedPixelCNN

CLASSES = ClassLabels(("a", "b", "c"), dropout=0.2)
LAYOUT = CodeLayout((40, 56), 5, ((5, 7),))


def network(layers=2, kernel=3, layout=LAYOUT):
    """In double precision, with large weights."""
    made = GatedPixelCNN(layout, CLASSES, width=6, layers=layers, kernel=kernel).double().eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def seen(prior, row, column):
    """Positions with a gradient from the logits at one position."""
    embedded = torch.randn(1, 6, *prior.layout.grids[0], dtype=torch.float64, requires_grad=True)
    conditioning = torch.randn(1, 6, dtype=torch.float64)
    logits = prior.horizontal(embedded, prior.vertical(embedded, conditioning), conditioning)[0, row, column]
    (gradient,) = torch.autograd.grad(logits.square().sum(), embedded)
    return gradient.abs().amax(dim=(0, 1)) > 0


def test_receptive_field_of_many_layers_is_all_earlier_codes():
    """No blind spot to the upper right, which the first PixelCNN had."""
    prior = network(layers=9)
    order = torch.arange(LAYOUT.length).reshape(5, 7)
    for row in range(5):
        for column in range(7):
            assert torch.equal(seen(prior, row, column), order < order[row, column])


@pytest.mark.parametrize(("layers", "kernel"), [(1, 3), (2, 3), (2, 5)])
def test_receptive_field_is_as_documented(layers, kernel):
    prior = network(layers, kernel, CodeLayout((16, 16), 5, ((13, 13),)))
    rows, columns = seen(prior, 11, 6).nonzero().unbind(dim=1)
    radius = layers * (kernel // 2)
    assert columns.min() == 6 - radius and columns.max() == 6 + radius
    assert rows.max() == 11 and rows.min() == 11 - radius - 1


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 2])
def test_sampling_row_by_row_agrees_with_one_pass(layers):
    """Rows outside the receptive field are not read."""
    prior = network(layers, layout=CodeLayout((16, 16), 5, ((9, 4),)))
    labels, seeds = torch.arange(4) % 3, image_seeds(0, range(4))
    given, mask = torch.randint(5, (4, 36)), torch.rand(4, 36) < 0.3
    codes = prior.sample(labels, SamplingOptions(temperature=0.0), seeds, Known(given, mask))
    likeliest = prior.logits(codes, labels).argmax(dim=-1)
    assert torch.equal(codes[~mask], likeliest[~mask]) and torch.equal(codes[mask], given[mask])


def test_invalid_layouts_and_sizes_are_rejected():
    for layout in (CodeLayout((16, 16), 7, ((2, 2), (4, 4))), CodeLayout((16, 16), 7, ((4, 4),), depth=2)):
        with pytest.raises(UserError, match=r"one grid.*VectorQuantizer.*Autoregressive"):
            GatedPixelCNN(layout, CLASSES)
    with pytest.raises(UserError, match=r"single row.*Autoregressive"):
        GatedPixelCNN(CodeLayout((16, 16), 7, ((1, 9),)), CLASSES)
    with pytest.raises(UserError, match=r"kernel odd .* kernel 4"):
        GatedPixelCNN(LAYOUT, CLASSES, kernel=4)
