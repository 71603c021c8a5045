"""The law of every discriminator in the package, and what PatchGAN refuses."""

import pytest
import torch
from torch import nn

import genstack.losses
from genstack.discovery import discover
from genstack.losses.discriminator import Discriminator
from genstack.losses.patchgan import PatchGAN

PLANS = discover(genstack.losses, Discriminator)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(32, 32), (48, 64), (96, 32)])
def test_judges_images_of_any_shape(plan, channels, size):
    network = plan().build(channels)
    images = torch.randn(2, channels, *size, requires_grad=True)
    logits = network(images)
    assert logits.shape == (2, 1, *plan().grid(*size))
    logits.square().sum().backward()
    for tensor in (images, *network.parameters()):
        assert tensor.grad.isfinite().all() and tensor.grad.any()


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_judges_each_image_alone(plan):
    network = plan().build(3)
    images = torch.randn(3, 3, 32, 48)
    alone = torch.cat([network(image) for image in images.split(1)])
    torch.testing.assert_close(network(images), alone, rtol=1e-4, atol=1e-6)
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in network.modules())


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_fits_from_the_size_it_names(layers):
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
def test_names_the_largest_depth_that_fits(side, largest):
    PatchGAN(layers=largest).grid(side, 96)
    with pytest.raises(ValueError, match=f"use layers {largest} or larger images"):
        PatchGAN(layers=largest + 1).grid(side, 96)


def test_patches_of_three_layers_see_70_pixels():
    network = PatchGAN(width=2, norm=False).build(1)
    image = torch.randn(1, 1, 128, 160, requires_grad=True)
    network(image)[0, 0, 7, 9].backward()
    rows, columns = image.grad[0, 0].any(1).nonzero(), image.grad[0, 0].any(0).nonzero()
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (70, 70)


@pytest.mark.parametrize(
    ("plan", "message"), [((0, 3), "width 0"), ((7, 3), "width 7"), ((64, 0), "layers 0")]
)
def test_refuses_numbers_that_make_no_network(plan, message):
    with pytest.raises(ValueError, match=message):
        PatchGAN(*plan)
