"""Discriminator of StyleGAN2: residual blocks, one logit (Karras et al. 2019, arXiv:1912.04958)."""

from dataclasses import dataclass
from itertools import pairwise
from math import gcd, prod, sqrt
from typing import TypeVar

import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, leaky_relu

from genstack.errors import UserError
from genstack.losses.blur import Blur
from genstack.losses.discriminator import Discriminator

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)

SLOPE = 0.2  # of LeakyReLU below 0
GAIN = sqrt(2)  # keeps the variance through LeakyReLU
LAST = 4  # side of the last features


@dataclass(frozen=True)
class StyleGAN(Discriminator):
    """One logit for the whole image; suits images of single objects, with R1.

    Unlike the published network, it takes images of any size. Weights are scaled at initialization rather
    than at each use, because the compressor's optimizer is shared.

    Args:
        width: channels at full resolution; each downsampling doubles them, up to eightfold.
        layers: number of downsamplings, best down to 4 to 7 pixels: 3 for 32 px, 4 for 64, 6 for 256.
        group: images in the minibatch standard deviation (4 in StyleGAN2); 1 for none.
    """

    width: int = 32
    layers: int = 3
    group: int = 1

    def __post_init__(self) -> None:
        for name in ("width", "layers", "group"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"{name} {getattr(self, name)} of a StyleGAN is out of range; it must be at least 1"
                )

    def build(self, channels: int) -> nn.Module:
        return Network(self, channels)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        fewest = LAST * 2**self.layers
        if min(height, width) >= fewest:
            return 1, 1
        fitting = (min(height, width) // LAST).bit_length() - 1
        way_out = f"use layers {fitting} or" if fitting >= 1 else "use layers 1 and"
        raise UserError(
            f"a StyleGAN discriminator of {self.layers} layers needs images of {fewest} x {fewest} pixels or "
            f"more, got {height} x {width}; {way_out} larger images"
        )


class Network(nn.Module):
    """Network of `StyleGAN`."""

    def __init__(self, config: StyleGAN, channels: int):
        super().__init__()
        self.config = config
        widths = [config.width * min(2**layer, 8) for layer in range(config.layers + 1)]
        self.first = initialize(nn.Conv2d(channels, widths[0], 1))
        self.blocks = nn.Sequential(*(Block(before, after) for before, after in pairwise(widths)))
        self.mixed = initialize(nn.Conv2d(widths[-1] + (config.group > 1), widths[-1], 3, padding=1))
        self.whole = initialize(nn.Linear(widths[-1] * LAST**2, widths[-1]))
        self.logit = initialize(nn.Linear(widths[-1], 1), gain=1.0)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b 1 1 1"]:
        features = self.blocks(leaky_relu(self.first(images), SLOPE))
        if self.config.group > 1:
            features = torch.cat([features, minibatch_deviation(features, self.config.group)], dim=1)
        features = adaptive_avg_pool2d(leaky_relu(self.mixed(features), SLOPE), LAST)
        whole = self.whole(rearrange(features, "b c h w -> b (c h w)"))
        return rearrange(self.logit(leaky_relu(whole, SLOPE)), "b 1 -> b 1 1 1")


class Block(nn.Module):
    """Residual block to half the size, scaled to keep the variance."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.conv1 = initialize(nn.Conv2d(before, before, 3, padding=1))
        self.blur = Blur(border=2, stride=1)
        self.conv2 = initialize(nn.Conv2d(before, after, 3, stride=2))
        self.shortcut = initialize(nn.Conv2d(before, after, 1, bias=False), gain=1.0)
        self.halve = Blur(border=1, stride=2)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d k l"]:
        inner = leaky_relu(self.conv1(features), SLOPE)
        inner = leaky_relu(self.conv2(self.blur(inner)), SLOPE)
        return (self.shortcut(self.halve(features)) + inner) / sqrt(2)


def minibatch_deviation(features: Float[Tensor, "b c h w"], group: int) -> Float[Tensor, "b 1 h w"]:
    """Compute the minibatch standard deviation, one number per group of images."""
    height, width = features.shape[-2:]
    groups = rearrange(features.float(), "(n g) c h w -> n g c h w", g=gcd(len(features), group))
    deviation = (groups.var(dim=1, correction=0) + 1e-8).sqrt()
    size = {"g": groups.shape[1], "h": height, "w": width}
    return repeat(reduce(deviation, "n c h w -> n", "mean"), "n -> (n g) 1 h w", **size).to(features)


def initialize(layer: Layer, gain: float = GAIN) -> Layer:
    """Initialize a layer to keep the variance, with bias 0."""
    nn.init.normal_(layer.weight, std=gain / sqrt(prod(layer.weight.shape[1:])))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
