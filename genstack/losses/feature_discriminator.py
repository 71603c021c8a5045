"""Discriminator on features of a frozen classifier (Projected GAN, arXiv:2111.01007)."""

from dataclasses import dataclass
from math import gcd

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from genstack.errors import UserError
from genstack.losses.discriminator import Discriminator
from genstack.losses.efficientnet import EfficientNetLite0
from genstack.losses.features import Features, Frozen, check_channels
from genstack.losses.patchgan import SLOPE


@dataclass(frozen=True)
class FeatureDiscriminator(Discriminator):
    """A small head on each feature map of a frozen network; it learns quickly.

    The paper mixes the maps by random convolutions first; here each head reads its own map.

    Args:
        features: the frozen network.
        width: channels of each head; a multiple of 4.
    """

    features: Features = EfficientNetLite0()  # noqa: RUF009 - a frozen config
    width: int = 64

    def __post_init__(self) -> None:
        if self.width < 4 or self.width % 4:
            raise UserError(f"width {self.width} of a FeatureDiscriminator must be a multiple of 4; use 64")

    def build(self, channels: int) -> nn.Module:
        check_channels(channels)
        return Heads(self)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        grids = self.features.grids(height, width)
        return len(grids) * grids[0][0], grids[0][1]


class Heads(nn.Module):
    """Network of `FeatureDiscriminator`; logits are resized to the finest map, for equal weight in means."""

    def __init__(self, config: FeatureDiscriminator):
        super().__init__()
        self.frozen = Frozen(config.features)
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(depth, config.width, 1),
                nn.GroupNorm(gcd(32, config.width // 4), config.width),
                nn.LeakyReLU(SLOPE),
                nn.Conv2d(config.width, config.width, 3, padding=1),
                nn.LeakyReLU(SLOPE),
                nn.Conv2d(config.width, 1, 1),
            )
            for depth in config.features.widths
        )

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b 1 h w"]:
        maps = self.frozen(images).maps
        size = maps[0].shape[-2:]
        logits = [interpolate(head(one), size) for head, one in zip(self.heads, maps, strict=True)]
        return rearrange(torch.stack(logits), "depth b 1 h w -> b 1 (depth h) w")
