"""Learning speed of priors: a bound on the loss after a few steps."""

import math

import pytest
import torch

from genstack.conditions import ClassLabels
from genstack.layout import CodeLayout
from genstack.prior import Prior
from genstack.prior.autoregressive import Autoregressive
from genstack.prior.diffusion import Diffusion
from genstack.prior.masked import Masked
from genstack.prior.random_order import RandomOrder
from genstack.training.optimization import Optimization
from genstack.transformer import Backbone

LAYOUT = CodeLayout((16, 16), 128, ((6, 6),))
CLASSES = ClassLabels(tuple("abcd"), dropout=0.0)
BACKBONE = Backbone(width=64, depth=2, heads=2)
COPIED = (0.5, 0.8)  # chances that a code is that above it, or one of these two: above it, to its left


def images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes mostly copied from above or from the left, and else drawn from a quarter for each class."""
    labels = torch.randint(4, (count,))
    fresh = torch.randint(32, (count, 6, 6)) + 32 * labels[:, None, None]
    chance = torch.rand(count, 6, 6)
    for row in range(6):
        for column in range(6):
            if row and column:
                above, left = fresh[:, row - 1, column], fresh[:, row, column - 1]
                copied = torch.where(chance[:, row, column] < COPIED[0], above, left)
                kept = chance[:, row, column] < COPIED[1]
                fresh[:, row, column] = torch.where(kept, copied, fresh[:, row, column])
    return fresh.flatten(1), labels


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("kind", "muon", "bound"),
    [
        (Autoregressive, None, 2.6),
        (Autoregressive, 0.006, 2.5),
        (RandomOrder, None, 3.25),
        (Masked, None, 3.48),
        (Diffusion, None, 3.4),
    ],
)
def test_a_prior_learns_in_few_steps(kind: type[Prior], muon, bound):
    """With small separate heads, codes of 0.02 and no neighbors, 3.43 were reached, 3.53, 3.56 and 3.57."""
    torch.manual_seed(0)
    prior = kind(LAYOUT, CLASSES, BACKBONE)
    codes, labels = images(8192)
    optimizer, schedule = Optimization(learning_rate=1e-3, warmup="5%", muon=muon).optimizer([prior], 200)
    for step, batch in enumerate(torch.randperm(8192)[: 200 * 32].split(32)):
        prior.before_step(step / 200)
        prior.loss(codes[batch], labels[batch]).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    held_out, their_labels = images(256)
    with torch.no_grad():
        nats = float(prior.eval().nats(held_out, their_labels).mean()) / LAYOUT.length
    assert nats < bound < math.log(128)
