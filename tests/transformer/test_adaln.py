"""Adaptive norms in priors other than that of VAR: all weights are read, and caches change nothing."""

import pytest
import torch

from genstack.conditions import ClassLabels
from genstack.layout import CodeLayout
from genstack.prior import Autoregressive, SamplingOptions, image_seeds
from genstack.prior.masked import Masked
from genstack.prior.random_order import RandomOrder
from genstack.transformer import Backbone

CLASSES = ClassLabels(("a", "b", "c"), dropout=0.2)
LAYOUT = CodeLayout((16, 24), 7, ((2, 3),))


@pytest.mark.parametrize("norm", ["rms", "layer"])
@pytest.mark.parametrize("adaln", ["own", "shared"])
@pytest.mark.parametrize("kind", [Autoregressive, Masked, RandomOrder])
def test_gradients_reach_every_parameter(kind, adaln, norm):
    prior = kind(LAYOUT, CLASSES, Backbone(24, 2, 3, dropout=0.0, adaln=adaln, norm=norm))
    prior.loss(torch.randint(7, (16, 6)), torch.arange(16) % 3).backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@torch.no_grad()
@pytest.mark.parametrize("adaln", ["own", "shared"])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_cached_steps_agree_with_one_pass(adaln, checkpoint):
    backbone = Backbone(24, 2, 3, dropout=0.0, qk_norm="unit", adaln=adaln, checkpoint=checkpoint)
    prior = Autoregressive(LAYOUT, CLASSES, backbone)
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    labels = torch.arange(4) % 3
    codes = prior.sample(labels, SamplingOptions(temperature=0.0), image_seeds(0, range(4)))
    assert torch.equal(codes, prior.eval().logits(codes, labels).argmax(dim=-1))
