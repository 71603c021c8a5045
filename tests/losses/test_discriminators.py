"""Laws of all discriminators, their formulas, and errors."""

import itertools
import statistics

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import upfirdn
from torch import nn

import genstack.losses
from genstack.discovery import discover
from genstack.losses import stylegan
from genstack.losses.blur import Blur
from genstack.losses.discriminator import Discriminator
from genstack.losses.patchgan import PatchGAN
from genstack.losses.smooth_patchgan import SmoothPatchGAN
from genstack.losses.stylegan import StyleGAN

PLANS = discover(genstack.losses, Discriminator)


def filtered(features, border, stride):
    """Rows and columns between zeros, through the filter of scipy, and every so many of them."""
    line = np.array([1.0, 3.0, 3.0, 1.0]) / 8
    odd = [side % 2 for side in features.shape[2:]]
    framed = np.pad(features.numpy(), [(0, 0), (0, 0), *((border, border + more) for more in odd)])
    rows = upfirdn(line, framed, axis=2)[:, :, 3:-3]
    return torch.from_numpy(upfirdn(line, rows, axis=3)[:, :, ::stride, 3:-3][..., ::stride].copy())


@pytest.mark.parametrize("size", [(8, 10), (9, 7)])
@pytest.mark.parametrize(("border", "stride"), [(1, 2), (2, 1)])
def test_blur_matches_scipy(size, border, stride):
    features = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(Blur(border, stride)(features), filtered(features, border, stride))


def test_blur_removes_the_finest_stripes():
    stripes = torch.ones(1, 1, 16, 16)
    stripes[..., 1::2] = -1
    assert Blur(1, 2)(stripes)[..., 1:-1].abs().max() < 1e-6


@pytest.mark.parametrize("size", [(8, 6), (9, 11)])
def test_block_matches_stylegan2(size):
    """Blurred at full size, then convolved with stride 2; the gain of sqrt(2) lies in the initial weights."""
    block, features = stylegan.Block(3, 5).double(), torch.randn(2, 3, *size, dtype=torch.float64)
    conv1, conv2, shortcut = block.conv1, block.conv2, block.shortcut
    for layer in (conv1, conv2):
        nn.init.normal_(layer.bias)
    inner = F.conv2d(F.pad(features, (1, 1, 1, 1)), conv1.weight) + conv1.bias[:, None, None]
    inner = filtered(torch.where(inner > 0, inner, 0.2 * inner).detach(), border=2, stride=1)
    inner = F.conv2d(inner, conv2.weight, stride=2) + conv2.bias[:, None, None]
    inner = torch.where(inner > 0, inner, 0.2 * inner)
    straight = F.conv2d(filtered(features, border=1, stride=2), shortcut.weight)
    torch.testing.assert_close(block(features), (inner + straight) / 2**0.5)
    assert inner.shape[2:] == tuple((side + 1) // 2 for side in size)


@pytest.mark.parametrize(("count", "group", "together"), [(8, 4, 4), (6, 4, 2), (3, 4, 1), (4, 2, 2)])
def test_minibatch_deviation_matches_loops(count, group, together):
    """Equal for all places and images of a group; the most that divide the batch are a group."""
    features = torch.randn(count, 3, 2, 5)
    found = stylegan.minibatch_deviation(features, group)
    assert found.shape == (count, 1, 2, 5)
    for begin in range(0, count, together):
        deviations = []
        for channel, row, column in itertools.product(range(3), range(2), range(5)):
            values = features[begin : begin + together, channel, row, column].tolist()
            deviations.append((statistics.pvariance(values) + 1e-8) ** 0.5)
        expected = torch.full((together, 1, 2, 5), statistics.mean(deviations))
        torch.testing.assert_close(found[begin : begin + together], expected)


def test_stylegan_weights_keep_the_variance():
    """At the start: LeakyReLU's gain of sqrt(2) lies in the weights of all layers but the last."""
    torch.manual_seed(0)
    network = StyleGAN(width=32, layers=3).build(3)
    gains = {"mixed": 2.0, "whole": 2.0, "logit": 1.0}
    for name, gain in gains.items():
        weight = getattr(network, name).weight.detach()
        assert float(weight.std()) == pytest.approx((gain / weight[0].numel()) ** 0.5, rel=0.15)


def test_smooth_patchgan_matches_vqgan_plus():
    """Its layers one by one, from the formulas; the published one agrees where it does not pool (16 x 16)."""
    network = SmoothPatchGAN(width=32, layers=2).build(3).double()
    images = torch.randn(2, 3, 12, 17, dtype=torch.float64)
    parts = [part for part in network if isinstance(part, nn.Conv2d | nn.GroupNorm)]
    for part in parts:
        nn.init.normal_(part.weight, std=0.3)
        nn.init.normal_(part.bias, std=0.3)
    first, *halvings, mixed, logit = parts
    features = leaky(F.conv2d(images, first.weight, first.bias, padding=2))
    for convolution, norm in zip(halvings[::2], halvings[1::2], strict=True):
        features = F.conv2d(features, convolution.weight, convolution.bias, padding=1)
        features = filtered(features.detach(), border=1, stride=2)
        groups = features.reshape(2, 32, -1)
        groups = (groups - groups.mean(2, keepdim=True)) / (
            groups.var(2, correction=0, keepdim=True) + 1e-5
        ).sqrt()
        features = groups.reshape(features.shape) * norm.weight[:, None, None] + norm.bias[:, None, None]
        features = leaky(features)
    features = leaky(F.conv2d(features, mixed.weight, mixed.bias))
    expected = F.conv2d(features, logit.weight, logit.bias, padding=2)
    torch.testing.assert_close(network(images), expected)


def leaky(features):
    """A tenth of what is negative, as VQGAN+ has it."""
    return torch.where(features > 0, features, 0.1 * features)


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_smallest_image_in_the_error_fits(layers):
    fewest = 3 * 2**layers
    plan = PatchGAN(width=2, layers=layers)
    assert plan.build(1)(torch.zeros(1, 1, fewest, fewest + 1)).shape == (
        1,
        1,
        *plan.grid(fewest, fewest + 1),
    )
    with pytest.raises(ValueError, match=f"needs images of {fewest} x {fewest} pixels"):
        plan.grid(fewest + 5, fewest - 1)


@pytest.mark.parametrize(("side", "largest"), [(32, 3), (24, 3), (23, 2), (12, 2), (11, 1), (6, 1)])
def test_error_names_the_largest_number_of_layers(side, largest):
    PatchGAN(layers=largest).grid(side, 96)
    with pytest.raises(ValueError, match=f"use layers {largest} or larger images"):
        PatchGAN(layers=largest + 1).grid(side, 96)


def test_receptive_field_of_three_layers_is_70_pixels():
    network = PatchGAN(width=2, norm=False).build(1)
    image = torch.randn(1, 1, 128, 160, requires_grad=True)
    network(image)[0, 0, 7, 9].backward()
    rows, columns = image.grad[0, 0].any(1).nonzero(), image.grad[0, 0].any(0).nonzero()
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (70, 70)


@pytest.mark.parametrize(
    ("plan", "message"), [((0, 3), "width 0"), ((7, 3), "width 7"), ((64, 0), "layers 0")]
)
def test_invalid_discriminators_are_rejected(plan, message):
    with pytest.raises(ValueError, match=message):
        PatchGAN(*plan)
