"""Discriminator of VQGAN+, with smoothed downsampling (Weber et al. 2024, arXiv:2409.16211)."""

from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from genstack.errors import UserError
from genstack.losses.blur import Blur
from genstack.losses.discriminator import Discriminator

SLOPE = 0.1  # of LeakyReLU below 0
SPREAD = 0.02  # standard deviation of initial weights


@dataclass(frozen=True)
class SmoothPatchGAN(Discriminator):
    """Logits of overlapping patches, with a low-pass filter before each downsampling.

    Args:
        width: channels of the first layer; each downsampling but the first doubles them.
        layers: number of downsamplings; 4 in VQGAN+ at 256 px, 2 for 64.
    """

    width: int = 64
    layers: int = 3

    def __post_init__(self) -> None:
        if self.width < 4 or self.width % 4:
            raise UserError(f"width {self.width} of a SmoothPatchGAN must be a multiple of 4; use 64")
        if self.layers < 1:
            raise UserError(
                f"layers {self.layers} of a SmoothPatchGAN is out of range; it must be at least 1"
            )

    def build(self, channels: int) -> nn.Module:
        widths = [self.width, *(self.width * 2**layer for layer in range(self.layers))]
        network = nn.Sequential(convolution(channels, self.width, 5), nn.LeakyReLU(SLOPE))
        for before, after in pairwise(widths):
            groups = 32 if after % 32 == 0 else 4
            network.extend(
                [convolution(before, after, 3), Blur(border=1, stride=2), nn.GroupNorm(groups, after)]
            )
            network.append(nn.LeakyReLU(SLOPE))
        network.extend([convolution(widths[-1], widths[-1], 1), nn.LeakyReLU(SLOPE)])
        return network.append(convolution(widths[-1], 1, 5))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        fewest = 2 * 2**self.layers
        if min(height, width) < fewest:
            raise UserError(
                f"a SmoothPatchGAN of {self.layers} layers needs images of {fewest} x {fewest} pixels or "
                f"more, got {height} x {width}; use fewer layers or larger images"
            )
        for _ in range(self.layers):
            height, width = (height + 1) // 2, (width + 1) // 2
        return height, width


def convolution(before: int, after: int, kernel: int) -> nn.Conv2d:
    """Build a convolution of stride 1 with small initial weights."""
    layer = nn.Conv2d(before, after, kernel, padding=kernel // 2)
    nn.init.normal_(layer.weight, std=SPREAD)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
