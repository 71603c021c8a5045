"""Schedules in closed form, weight decay, and Muon."""

import copy
import math

import pytest
import torch
from torch import nn

from genstack.compressor import Autoencoder
from genstack.compressor.networks.convolutional import Convolutional
from genstack.compressor.quantizers import VectorQuantizer
from genstack.errors import UserError
from genstack.training.optimization import Optimization, layer_matrices


@pytest.mark.parametrize(("warmup", "rising"), [(4, 4), ("20%", 4), (0, 0)])
def test_schedule_is_linear_warmup_and_cosine_decay(warmup, rising):
    config, total = Optimization(learning_rate=0.8, warmup=warmup, final=0.25), 20
    for step in range(rising):
        assert config.factor(step, total) == pytest.approx((step + 1) / (rising + 1))
    assert config.factor(rising, total) == 1
    middle = rising + (total - rising) // 2
    assert config.factor(middle, total) == pytest.approx((1 + 0.25) / 2)
    assert config.factor(total, total) == pytest.approx(0.25)
    assert config.factor(total + 5, total) == pytest.approx(0.25)
    optimizer, schedule = config.optimizer([nn.Linear(2, 2)], total)
    for step in range(total):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.8 * config.factor(step, total))
        optimizer.step()
        schedule.step()


def test_constant_learning_rate():
    config = Optimization(final=1.0, warmup=0)
    assert {config.factor(step, 7) for step in range(9)} == {1.0}


def test_weight_decay_applies_to_matrices_and_kernels():
    """Biases, norms and tables have no weight decay."""
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
        ({"muon": 0.0}, "muon 0.0"),
        ({"discriminator": math.inf}, "discriminator inf"),
    ],
)
def test_invalid_optimization_is_rejected(wrong, message):
    with pytest.raises(UserError, match=message):
        Optimization(**wrong)


def compressor() -> Autoencoder:
    network = Convolutional(dim=16, width=12, multipliers=(1, 2), blocks=1, attention=(1,), groups=4)
    return Autoencoder(3, network, VectorQuantizer(8, dim=4))


def test_muon_updates_inner_kernels():
    model = compressor()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer, _ = Optimization(muon=0.01).optimizer([model], 10)
    muon = {names[id(each)] for group in optimizer.param_groups if group["muon"] for each in group["params"]}
    rest = {
        names[id(each)] for group in optimizer.param_groups if not group["muon"] for each in group["params"]
    }
    spared = {"encoder.first.weight", "decoder.last.weight", "to_quantizer.weight", "from_quantizer.weight"}
    kernels = {name for name, parameter in model.named_parameters() if parameter.ndim == 4}
    assert muon == kernels - spared
    assert rest == set(names.values()) - muon


def test_muon_updates_linear_layers_in_lists():
    layers = nn.ModuleList([nn.Linear(3, 5), nn.LayerNorm(5)])
    network = nn.ModuleDict({"table": nn.Embedding(7, 3), "layers": layers, "head": nn.Linear(5, 7)})
    assert [id(each) for each in layer_matrices(network)] == [id(layers[0].weight)]


def test_muon_and_adamw_steps_are_independent():
    """Also after the state went through a checkpoint."""
    ours, theirs = nn.ModuleList([nn.Linear(3, 5), nn.Linear(6, 4)]), [nn.Linear(3, 5), nn.Linear(6, 4)]
    for mine, other in zip(ours, theirs, strict=True):
        other.load_state_dict(mine.state_dict())
    config = Optimization(learning_rate=0.02, weight_decay=0.1, warmup=0, muon=0.01, final=1.0)
    optimizer, _ = config.optimizer([ours], 10)
    alone = [
        torch.optim.Muon(
            [each.weight for each in theirs], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW([each.bias for each in theirs], lr=0.02, weight_decay=0.0, betas=config.betas),
    ]
    for step in range(3):
        for mine, other in zip(ours, theirs, strict=True):
            for one, another in zip(mine.parameters(), other.parameters(), strict=True):
                one.grad = torch.randn_like(one)
                another.grad = one.grad.clone()
        for each in (optimizer, *alone):
            each.step()
        if step == 1:
            state = copy.deepcopy(optimizer.state_dict())
            optimizer, _ = config.optimizer([ours], 10)
            optimizer.load_state_dict(state)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.state_dict(), other.state_dict())


def test_muon_flattens_kernels():
    kernel = nn.Conv2d(9, 10, 3)
    matrix = nn.Linear(81, 10)
    matrix.weight.data = kernel.weight.data.flatten(1).clone()
    config = Optimization(muon=0.01, warmup=0)
    groups = [{"params": [each.weight], "muon": True, "network": 0} for each in (kernel, matrix)]
    optimizer, _ = config.optimizer([nn.Linear(1, 1)], 10)
    for group in groups:
        optimizer.add_param_group(group)
    kernel.weight.grad = torch.randn_like(kernel.weight)
    matrix.weight.grad = kernel.weight.grad.flatten(1)
    optimizer.step()
    torch.testing.assert_close(kernel.weight.flatten(1), matrix.weight)


def test_discriminator_has_its_own_learning_rate():
    networks = [nn.Linear(2, 3), nn.Linear(3, 2)]
    for own, expected in ((0.5, {0: 0.1, 1: 0.5}), (None, {0: 0.1, 1: 0.1})):
        optimizer, _ = Optimization(0.1, warmup=0, discriminator=own).optimizer(networks, 10)
        assert {group["network"]: group["lr"] for group in optimizer.param_groups} == expected
