"""Adaptive weight: the ratio of gradient norms at the last layer."""

import pytest
import torch
from torch import nn

from genstack.losses.adaptive import AdaptiveWeight


@pytest.fixture
def layer():
    return nn.Linear(3, 2, bias=False)


def terms(layer):
    written = layer(
        torch.ones(1, 3)
    )  # the gradient of its sum by the weight is 1 everywhere, of norm sqrt(6)
    return 5 * written.sum(), written[0, 0] * 2


def test_adaptive_weight_is_the_ratio_of_norms(layer):
    close, pushed = terms(layer)
    found = AdaptiveWeight()(close, pushed, layer.weight)
    assert found.item() == pytest.approx(5 * 6**0.5 / (2 * 3**0.5 + 1e-4))
    assert not found.requires_grad and layer.weight.grad is None
    (close + found * pushed).backward()  # the graph is still there
    expected = torch.full((2, 3), 5.0)
    expected[0] += 2 * found
    torch.testing.assert_close(layer.weight.grad, expected)


def test_adaptive_weight_is_clamped(layer):
    close, pushed = terms(layer)
    assert AdaptiveWeight(most=1.5)(close, pushed, layer.weight) == 1.5
    assert AdaptiveWeight()(close, 0 * pushed, layer.weight) == 1e4


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_non_finite_ratio_is_zero(layer, bad, side):
    both = list(terms(layer))
    both[side] = both[side] * bad
    assert AdaptiveWeight()(*both, layer.weight) == 0


def test_invalid_limit_is_rejected():
    with pytest.raises(ValueError, match="most 0"):
        AdaptiveWeight(most=0.0)
