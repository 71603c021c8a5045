"""A prior for each grid: the chain rule, and that finer grids read coarser ones."""

import pytest
import torch

from genstack.conditions import ClassLabels
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.hierarchical import Hierarchical
from genstack.transformer import Backbone

CLASSES = ClassLabels(("a", "b", "c"), dropout=0.2)
LAYOUT = CodeLayout((16, 24), 7, ((1, 2), (2, 3), (3, 4)))


@pytest.fixture
def prior():
    made = Hierarchical(LAYOUT, CLASSES, Backbone(24, 2, 3, dropout=0.0), Backbone(16, 1, 2, dropout=0.0))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


@torch.no_grad()
def test_nats_add_up_over_the_grids(prior):
    """The coarsest grid costs what its prior says alone; a finer one what it costs beyond coarser ones."""
    codes, labels = torch.randint(7, (3, LAYOUT.length)), torch.arange(3)
    total = prior.priors[0].nats(codes[:, :2], labels)
    for each, start, end in ((prior.priors[1], 2, 8), (prior.priors[2], 8, 20)):
        chances = each.logits(codes[:, :end], labels).log_softmax(dim=-1)
        chosen = chances.gather(2, codes[:, :end, None])[:, start:, 0]
        total = total - chosen.sum(dim=1)
    torch.testing.assert_close(prior.nats(codes, labels), total)


@torch.no_grad()
def test_codes_affect_all_later_logits_and_no_others(prior):
    codes, labels = torch.randint(7, (1, LAYOUT.length)), torch.tensor([1])
    before = prior.logits(codes, labels)
    for index in range(LAYOUT.length):
        changed = codes.clone()
        changed[0, index] = (changed[0, index] + 3) % 7
        moved = (prior.logits(changed, labels) - before).abs().amax(dim=(0, 2)) > 1e-6
        assert torch.equal(moved, torch.arange(LAYOUT.length) > index)


def test_one_grid_is_refused():
    with pytest.raises(UserError, match=r"several grids.*HierarchicalAutoencoder.*Autoregressive"):
        Hierarchical(CodeLayout((16, 16), 7, ((4, 4),)), CLASSES)
