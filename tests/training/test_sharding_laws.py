"""Every prior and network computes with cut weights what it does with whole ones: a law for new parts, too.

One process stands for all here: its parts are whole, but every weight that is used out of turn is found.
"""

import copy
import inspect
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

import genstack.prior
from genstack.compressor import Autoencoder, Convolutional, Gaussian, HierarchicalAutoencoder
from genstack.compressor.quantizers.multiscale import MultiScale
from genstack.compressor.quantizers.vq import VectorQuantizer
from genstack.conditions import ClassLabels
from genstack.description import build, describe
from genstack.discovery import discover
from genstack.errors import UserError
from genstack.layout import CodeLayout, LatentLayout
from genstack.prior import LatentPrior, Prior, SamplingOptions, image_seeds
from genstack.training.sharding import gather_model, is_sharded, shard
from genstack.transformer import Backbone

PRIORS = discover(genstack.prior, Prior)
CLASSES = ClassLabels(("a", "b", "c"), dropout=0.2)
LAYOUTS = [
    CodeLayout((16, 24), 6, ((2, 4),)),
    CodeLayout((16, 24), 6, ((1, 2), (2, 3))),
    CodeLayout((16, 24), 6, ((2, 2),), depth=2),
    LatentLayout((16, 24), 5, ((2, 3),)),
]
BACKBONE = Backbone(width=24, depth=2, heads=3, dropout=0.0)
CROSSED = replace(BACKBONE, cross_attention=True)
SIZES = {
    "backbone": BACKBONE,
    "finer": BACKBONE,
    "width": 24,
    "layers": 2,
    "heads": 3,
    "dropout": 0.0,
    "likelihood_steps": 2,
    "masks": 3,
}


@pytest.fixture(scope="module")
def mesh():
    """Of this process alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def known(kind, sizes):
    arguments = inspect.signature(kind).parameters
    found = {name: size for name, size in sizes.items() if name in arguments}
    if issubclass(kind, LatentPrior):
        found["backbone"] = replace(found["backbone"], adaln="own")
    return found


def small(kind, sizes):
    """A prior over the first layout that it takes, and the compressor that it is attached to."""
    for layout in LAYOUTS:
        try:
            prior = kind(layout, CLASSES, **known(kind, sizes))
        except UserError:
            continue
        scales = tuple(range(1, len(layout.grids) + 1))
        quantizer = Gaussian(5) if isinstance(layout, LatentLayout) else MultiScale(scales, 6, 5)
        compressor = Autoencoder(1, Convolutional(8, 8, (1, 1, 1, 1), 1, (), False), quantizer)
        prior.attach(compressor)
        return prior, compressor
    raise AssertionError(f"{kind} takes none of the layouts")


def like(described, compressor):
    """A prior with other weights, attached to the same compressor."""
    prior = build(described)
    prior.attach(compressor)
    return prior


def check(whole, cut, compute):
    """Results of `compute` and gradients of their sum are equal for both."""
    results = []
    for model in (whole, cut):
        torch.manual_seed(1)
        results.append(compute(model))
    torch.testing.assert_close(results[1], results[0])
    for result in results:
        result.square().sum().backward()
    gradients = [[parameter.grad for parameter in model.parameters()] for model in (whole, cut)]
    assert any(isinstance(gradient, DTensor) for gradient in gradients[1])
    for expected, gradient in zip(*gradients, strict=True):
        gathered = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
        torch.testing.assert_close(gathered, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("backbone", [BACKBONE, CROSSED], ids=["plain", "crossed"])
def test_sharded_priors_match_unsharded(mesh, name, backbone, monkeypatch):
    if backbone is CROSSED and not known(PRIORS[name], {"backbone": backbone}):
        pytest.skip("it has no backbone")
    whole, compressor = small(PRIORS[name], SIZES | {"backbone": backbone, "finer": backbone})
    with torch.no_grad():
        for parameter in whole.parameters():  # gates begin at 0, behind which nothing would be seen
            parameter.add_(0.02 * torch.randn_like(parameter))
    cut, described = copy.deepcopy(whole), describe(whole)
    shard(cut, mesh)
    assert is_sharded(cut)
    layout = whole.layout
    codes, condition = layout.random(3, torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2])
    check(whole.train(), cut.train(), lambda prior: prior.loss(codes, condition))
    whole.eval(), cut.eval()
    with torch.no_grad():
        # Validation measures latents by this; their `nats` has backward passes, which need whole weights.
        name = "held_out_loss" if isinstance(whole, LatentPrior) else "nats"
        sharded, expected = (getattr(prior, name)(codes, condition) for prior in (cut, whole))
        torch.testing.assert_close(sharded, expected)
        again = gather_model(cut, lambda: like(described, compressor))
        assert type(again) is type(whole)
        assert again.state_dict().keys() == whole.state_dict().keys()
        for key, tensor in whole.state_dict().items():
            assert torch.equal(again.state_dict()[key], tensor), key
    # Whole weights are packed for the products of oneDNN, which round otherwise than those of shards.
    monkeypatch.setattr(genstack.prior.prior, "pack_weights", lambda *_: nullcontext())
    drawn = [prior.sample(condition, SamplingOptions(), image_seeds(0, range(3))) for prior in (whole, cut)]
    assert torch.equal(*drawn)


def test_a_sharded_prior_may_sample_first(mesh):
    """In inference mode, whose tensors other calls cannot use."""
    prior, _ = small(PRIORS["Autoregressive"], SIZES)
    shard(prior.eval(), mesh)
    condition, seeds = torch.tensor([0, 1, 2]), image_seeds(0, range(3))
    one, other = (prior.sample(condition, SamplingOptions(), seeds) for _ in range(2))
    assert torch.equal(one, other)
    prior.loss(prior.layout.random(3, torch.Generator()), condition).backward()


@pytest.mark.slow
def test_sharded_networks_match_unsharded(mesh, network):
    whole = Autoencoder(3, network, VectorQuantizer(codebook_size=16, dim=4))
    images = torch.randn(2, 3, 32, 48)
    whole.train()(images)  # a codebook may begin at what it sees first
    cut = copy.deepcopy(whole)
    shard(cut, mesh)
    check(whole, cut, lambda model: model(images).images)


def test_sharded_hierarchies_match_unsharded(mesh):
    config = Convolutional(8, 8, (1, 2), 1, (), False)
    whole = HierarchicalAutoencoder(3, config, VectorQuantizer(codebook_size=16, dim=4))
    images = torch.randn(2, 3, 32, 48)
    whole.train()(images)
    cut = copy.deepcopy(whole)
    shard(cut, mesh)
    check(whole, cut, lambda model: model(images).images)
