"""Alignment of latents with features: closed forms, gradients, and training."""

import pytest
import torch
from torch import nn

from genstack.compressor import Autoencoder, Convolutional, HierarchicalAutoencoder
from genstack.compressor.networks.strided import Strided
from genstack.compressor.quantizers import VectorQuantizer
from genstack.data import ImageData
from genstack.errors import UserError
from genstack.losses.adaptive import AdaptiveWeight
from genstack.losses.alignment import Alignment, marginal_cosine, marginal_pairs
from genstack.losses.features import Features, ImageFeatures
from genstack.training.compressor import CompressorTraining
from genstack.training.optimization import Optimization


class Means(nn.Module):
    """Colours of quarters of the image in place of a network."""

    def forward(self, images):
        return ImageFeatures([nn.functional.adaptive_avg_pool2d(images, (2, 3))], images.mean((2, 3)), None)


class Colours(Features):
    """A network of one map with three channels."""

    widths = (3,)
    has_logits = False

    def grids(self, height, width):
        return ((2, 3),)

    def build(self):
        return Means()


def rotated(maps):
    """The maps in another basis of channels."""
    basis = torch.linalg.qr(torch.randn(maps.shape[1], maps.shape[1]))[0]
    return torch.einsum("bdhw,de->behw", maps, basis)


def test_directions_alone_count_at_each_position():
    maps = torch.randn(2, 5, 3, 4)
    assert marginal_cosine(maps * torch.rand(2, 1, 3, 4), maps, 0.0) < 1e-6
    torch.testing.assert_close(marginal_cosine(-maps, maps, 0.0), torch.tensor(2.0))
    torch.testing.assert_close(marginal_cosine(-maps, maps, 0.5), torch.tensor(1.5))
    one, other = torch.eye(4)[:2]
    orthogonal = [each.view(1, 4, 1, 1).expand(1, 4, 3, 2) for each in (one, other)]
    assert marginal_cosine(*orthogonal, 0.25) == 0.75 and marginal_cosine(*orthogonal, 1.0) == 0


def test_pairs_are_compared_in_any_basis():
    maps, other = torch.randn(2, 5, 3, 4), torch.randn(2, 7, 3, 4)
    assert marginal_pairs(3 * rotated(maps), maps, 0.0) < 1e-5
    brute = torch.zeros(2, 12, 12)
    for i in range(12):
        for j in range(12):
            first, second = (
                torch.cosine_similarity(each.flatten(2)[..., i], each.flatten(2)[..., j])
                for each in (maps, other)
            )
            brute[:, i, j] = ((first - second).abs() - 0.1).clamp(min=0)
    torch.testing.assert_close(marginal_pairs(maps, other, 0.1), brute.mean())


def training(dim=4, projection=1, **given):
    """A small autoencoder of images of shapes."""
    network = Convolutional(
        dim=6, width=4, multipliers=(1, 2), blocks=1, attention=(), middle_attention=False
    )
    return CompressorTraining(
        lambda channels: Autoencoder(
            channels, network, VectorQuantizer(16, dim, dead_after=None), projection
        ),
        ImageData(source="shapes", resolution=(8, 12), limit=12, batch_size=4),
        optimization=Optimization(discriminator=7.0),
        **given,
    )


def test_latents_learn_directions_of_features():
    made = training(
        alignment=lambda channels: Alignment(channels, Colours(), cosine_margin=0.0, pairs_margin=0.0)
    )
    optimizer, _ = made.optimization.optimizer(made.networks(), 100)
    assert {group["initial_lr"] for group in optimizer.param_groups} == {made.optimization.learning_rate}
    images = nn.functional.interpolate(torch.rand(4, 3, 2, 3) * 2 - 1, (8, 12))
    losses = []
    optimizer = torch.optim.Adam([each for network in made.networks() for each in network.parameters()], 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        found = made.alignment_loss(images, made.model(images))["alignment"]
        found.backward()
        optimizer.step()
        losses.append(found.item())
    assert losses[-1] < 0.5 * losses[0]
    assert next(made.model.encoder.parameters()).grad.any()
    assert not any("frozen" in name for name in made.state_dict())


def test_the_adaptive_weight_balances_gradients_before_the_quantizer():
    """With a limit out of reach, the alignment's gradient there is `weight` times the distance's."""
    torch.manual_seed(0)
    alignment = Alignment(4, Colours(), weight=0.3, cosine_margin=0.0, pairs_margin=0.0)
    made = training(alignment=lambda channels: alignment)
    images, layer = torch.rand(4, 3, 8, 12) * 2 - 1, made.model.latent_layer
    output = made.model(images)
    distance = made.distances(images, output)["reconstruction"]
    fixed = made.alignment_loss(images, output, distance)["alignment"]
    alignment.adaptive = AdaptiveWeight()
    found = made.alignment_loss(images, output, distance)["alignment"]
    norms = [torch.autograd.grad(each, layer, retain_graph=True)[0].norm() for each in (distance, found)]
    torch.testing.assert_close(norms[1], 0.3 * norms[0], rtol=1e-2, atol=0)
    torch.testing.assert_close(made.alignment_loss(images, output)["alignment"], fixed)
    assert made.step_metrics.local_means()["train/adaptive_alignment"] > 0
    found.backward()
    assert layer.grad.any() and next(made.model.encoder.parameters()).grad.any()


def test_an_adaptive_weight_needs_a_layer_and_no_compilation():
    def adaptive(channels):
        return Alignment(channels, Colours(), adaptive=AdaptiveWeight())

    with pytest.raises(UserError, match="needs a layer before the quantizer; use `projection: 1`"):
        training(dim=6, projection=0, alignment=adaptive)
    with pytest.raises(UserError, match="use `compile: auto` or `adaptive: null`"):
        training(alignment=adaptive, compile=True)
    grids = HierarchicalAutoencoder(3, Strided(8, stride=2), VectorQuantizer(16, 4))
    assert grids.latent_layer is grids.to_quantizers[0].weight


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="a grid of 1 x 32 for images of 64 x 64"):
        Alignment(4, Colours()).check(3, (64, 64), (1, 32))
    with pytest.raises(UserError, match="map 1 not found; the network has 1 maps"):
        Alignment(4, Colours(), map=1)
    with pytest.raises(UserError, match="1, 3 or 4 channels, got 2"):
        training(alignment=lambda channels: Alignment(channels, Colours())).alignment.check(2, (8, 8), (4, 4))
