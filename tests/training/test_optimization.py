"""How weights move: the schedule in closed form, and what weight decay leaves alone."""

import math

import pytest
import torch
from torch import nn

from genstack.errors import UserError
from genstack.training.optimization import Optimization


@pytest.mark.parametrize(("warmup", "rising"), [(4, 4), ("20%", 4), (0, 0)])
def test_rises_linearly_and_falls_by_half_a_cosine(warmup, rising):
    plan, total = Optimization(learning_rate=0.8, warmup=warmup, final=0.25), 20
    for step in range(rising):
        assert plan.factor(step, total) == pytest.approx((step + 1) / (rising + 1))
    assert plan.factor(rising, total) == 1
    middle = rising + (total - rising) // 2
    assert plan.factor(middle, total) == pytest.approx((1 + 0.25) / 2)
    assert plan.factor(total, total) == pytest.approx(0.25)
    assert plan.factor(total + 5, total) == pytest.approx(0.25)
    optimizer, schedule = plan.optimizer([nn.Linear(2, 2)], total)
    for step in range(total):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.8 * plan.factor(step, total))
        optimizer.step()
        schedule.step()


def test_no_decay_of_the_rate():
    plan = Optimization(final=1.0, warmup=0)
    assert {plan.factor(step, 7) for step in range(9)} == {1.0}


def test_weight_decay_is_of_matrices_and_kernels():
    """What has its scale for a reason (biases, norms, tables) keeps it."""
    network = nn.ModuleDict(
        {
            "linear": nn.Linear(3, 2),
            "kernel": nn.Conv2d(2, 3, 3),
            "norm": nn.GroupNorm(1, 3),
            "table": nn.Embedding(5, 2),
        }
    )
    network["kernel"].bias.requires_grad_(False)
    optimizer, _ = Optimization(learning_rate=0.1, weight_decay=0.5, warmup=0).optimizer([network], 10)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = [{names[id(p)] for p in group["params"]} for group in optimizer.param_groups]
    assert groups == [
        {"linear.weight", "kernel.weight"},
        {"linear.bias", "norm.weight", "norm.bias", "table.weight"},
    ]
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter, before[name] * (0.95 if name in groups[0] else 1.0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate 0.0"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"final": 1.5}, "final 1.5"),
        ({"warmup": "200%"}, "200%"),
        ({"learning_rate": math.nan}, "learning_rate nan"),
        ({"learning_rate": math.inf}, "learning_rate inf"),
        ({"weight_decay": -0.1}, "weight_decay -0.1"),
    ],
)
def test_refuses_what_no_optimizer_can_do(wrong, message):
    with pytest.raises(UserError, match=message):
        Optimization(**wrong)
