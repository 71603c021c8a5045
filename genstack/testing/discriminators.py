"""Laws of discriminators."""

from typing import Any

import torch
from torch import nn

from genstack.losses.discriminator import Discriminator
from genstack.testing.expect import build, check_config, gradients_flow, one_line_or_works

IMAGES = ((3, (32, 32)), (1, (48, 64)), (4, (96, 32)))  # channels, height and width


def make(part: type[Discriminator], **given: Any) -> Discriminator:
    """Build the settings."""
    return build(part, **given)


def logits_lie_on_the_grid(discriminator: Discriminator) -> None:
    """Images of any shape and number of channels give logits of the size of `grid`."""
    for channels, size in IMAGES:
        logits = discriminator.build(channels)(torch.randn(2, channels, *size))
        assert logits.shape == (2, 1, *discriminator.grid(*size))


def gradients_reach_images_and_weights(discriminator: Discriminator) -> None:
    """Gradients reach the images, for the compressor, and the discriminator's weights."""
    for channels, size in IMAGES:
        network, images = discriminator.build(channels), torch.randn(2, channels, *size, requires_grad=True)
        network(images).square().sum().backward()
        gradients_flow({"images": images, **dict(network.named_parameters())})


def images_do_not_affect_each_other(discriminator: Discriminator) -> None:
    """An image has the same logits alone and in a batch; there is no BatchNorm."""
    network, images = discriminator.build(3), torch.randn(3, 3, 32, 48)
    alone = torch.cat([network(image) for image in images.split(1)])
    torch.testing.assert_close(network(images), alone, rtol=1e-4, atol=1e-6)
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in network.modules())


def too_small_images_are_refused(discriminator: Discriminator) -> None:
    """Images of any size have logits, or are a UserError of one line."""
    for size in ((1, 1), (7, 64), (64, 7)):

        def logits(size: tuple[int, int] = size) -> None:
            grid = discriminator.grid(*size)
            assert discriminator.build(3)(torch.randn(2, 3, *size)).shape == (2, 1, *grid)

        one_line_or_works(logits)


def configs_are_values(discriminator: Discriminator) -> None:
    """A discriminator is a frozen dataclass: equal arguments make equal configs."""
    check_config(discriminator)
