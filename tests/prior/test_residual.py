"""The two transformers of residual codes: what sees what, and drawing by caches, the same as one pass."""

import pytest
import torch

from genstack.conditions import ClassLabels
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior import Known, SamplingOptions, image_seeds
from genstack.prior.residual import ResidualTransformer
from genstack.transformer import Backbone

CLASSES = ClassLabels(("a", "b", "c"), dropout=0.2)
LAYOUT = CodeLayout((16, 24), 7, ((1, 2), (2, 3)), depth=3)


@pytest.fixture(params=["none", "own", "shared"])
def prior(request):
    backbone = Backbone(24, 2, 3, dropout=0.0, adaln=request.param)
    made = ResidualTransformer(LAYOUT, CLASSES, backbone, layers=1)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


@torch.no_grad()
def test_codes_affect_all_later_logits_and_no_others(prior):
    codes, labels = torch.randint(7, (1, LAYOUT.length)), torch.tensor([1])
    before = prior.logits(codes, labels)
    for index in range(LAYOUT.length):
        changed = codes.clone()
        changed[0, index] = (changed[0, index] + 3) % 7
        moved = (prior.logits(changed, labels) - before).abs().amax(dim=(0, 2)) > 1e-6
        assert torch.equal(moved, torch.arange(LAYOUT.length) > index)


@torch.no_grad()
def test_cached_sampling_agrees_with_one_pass(prior):
    labels, seeds = torch.arange(4) % 3, image_seeds(0, range(4))
    given, mask = torch.randint(7, (4, LAYOUT.length)), torch.rand(4, LAYOUT.length) < 0.3
    codes = prior.sample(labels, SamplingOptions(temperature=0.0), seeds, Known(given, mask))
    likeliest = prior.logits(codes, labels).argmax(dim=-1)
    assert torch.equal(codes[~mask], likeliest[~mask]) and torch.equal(codes[mask], given[mask])


def test_attention_over_positions_is_as_long_as_the_grids():
    """The first transformer sees 8 positions, not 24 symbols."""
    prior = ResidualTransformer(LAYOUT, CLASSES, Backbone(24, 1, 3), layers=1)
    seen = []
    prior.transformer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    prior.nats(torch.randint(7, (2, LAYOUT.length)), torch.tensor([0, 1]))
    assert seen == [8]


def test_one_symbol_a_position_is_refused():
    with pytest.raises(UserError, match=r"several symbols.*quantizer Residual.*Autoregressive"):
        ResidualTransformer(CodeLayout((16, 16), 7, ((4, 4),)), CLASSES)
    with pytest.raises(UserError, match="layers must be at least 1, got 0"):
        ResidualTransformer(LAYOUT, CLASSES, layers=0)
