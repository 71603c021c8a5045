"""PatchGAN, a discriminator of overlapping patches (Isola et al. 2017, arXiv:1611.07004)."""

from dataclasses import dataclass
from itertools import pairwise
from math import gcd

from torch import nn

from genstack.errors import UserError
from genstack.losses.discriminator import Discriminator

KERNEL = 4  # side of every convolution
SLOPE = 0.2  # of LeakyReLU below 0
SPREAD = 0.02  # standard deviation of initial weights
WIDEST = 8  # channels of the last layers, times `width`


@dataclass(frozen=True)
class PatchGAN(Discriminator):
    """Logits of overlapping patches, 70 x 70 pixels with three layers; GroupNorm instead of BatchNorm.

    Args:
        width: channels of the first layer, even; each layer doubles them, up to eightfold.
        layers: number of downsamplings; more give larger patches and need larger images (3 from 24 px).
        norm: use GroupNorm.
    """

    width: int = 64
    layers: int = 3
    norm: bool = True

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2:
            raise UserError(f"width {self.width} of a PatchGAN must be even and above 0; use 64")
        if self.layers < 1:
            raise UserError(f"layers {self.layers} of a PatchGAN is out of range; it must be at least 1")

    def build(self, channels: int) -> nn.Module:
        widths = [self.width * min(2**layer, WIDEST) for layer in range(self.layers + 1)]
        network = nn.Sequential(convolution(channels, widths[0], stride=2), nn.LeakyReLU(SLOPE))
        for layer, (before, after) in enumerate(pairwise(widths), start=1):
            stride = 2 if layer < self.layers else 1
            network.append(convolution(before, after, stride, bias=not self.norm))
            if self.norm:
                network.append(nn.GroupNorm(gcd(32, after // 4), after))
            network.append(nn.LeakyReLU(SLOPE))
        return network.append(convolution(widths[-1], 1, stride=1))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        fewest = 3 * 2**self.layers
        if min(height, width) >= fewest:
            return height // 2**self.layers - 2, width // 2**self.layers - 2
        fitting = (min(height, width) // 3).bit_length() - 1
        way_out = f"use layers {fitting} or" if fitting >= 1 else "use layers 1 and"
        raise UserError(
            f"a PatchGAN of {self.layers} layers needs images of {fewest} x {fewest} pixels or more, "
            f"got {height} x {width}; {way_out} larger images"
        )


def convolution(channels: int, width: int, stride: int, bias: bool = True) -> nn.Conv2d:
    """Build a convolution with small initial weights, so that a new discriminator is at chance."""
    layer = nn.Conv2d(channels, width, KERNEL, stride, padding=1, bias=bias)
    nn.init.normal_(layer.weight, std=SPREAD)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
