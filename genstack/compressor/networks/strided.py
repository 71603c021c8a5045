"""Strided convolutions and residual blocks, as in VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937)."""

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genstack.compressor.network import Decoder, Encoder, Network, check_fit, tiles
from genstack.errors import UserError


@dataclass(frozen=True)
class Strided(Network):
    """Strided 4x4 convolutions, then residual blocks, without normalization: small and quick.

    It is also the network of each grid of a `HierarchicalAutoencoder`; the defaults are those of VQ-VAE-2
    (arXiv:1906.00446, table 4).

    Args:
        dim: channels of the features, and of the latents that the encoder writes and the decoder reads.
        stride: pixels that a latent stands for along each side, a power of 2.
        blocks: residual blocks of either half.
        inner: channels inside a residual block.
    """

    dim: int = 128
    stride: int = 4
    blocks: int = 2
    inner: int = 32

    def __post_init__(self) -> None:
        for name, least in {"dim": 2, "blocks": 0, "inner": 1}.items():
            if getattr(self, name) < least:
                raise UserError(f"{name} {getattr(self, name)} is too small; use {least} or more")
        if self.stride < 2 or self.stride & (self.stride - 1):
            raise UserError(f"stride {self.stride} is no power of 2; use 2, 4, 8 or 16")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the features between strided convolutions, fine to coarse; the last alone are whole."""
        halvings = self.stride.bit_length() - 1
        return (self.dim // 2,) * max(1, halvings - 1) + (self.dim,) * (halvings > 1)

    def encoder(self, channels: int) -> "StridedEncoder":
        return StridedEncoder(self, channels)

    def decoder(self, channels: int) -> "StridedDecoder":
        return StridedDecoder(self, channels)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return tiles(height, width, self.stride, "stride", "another `stride`")


class StridedEncoder(Encoder):
    """Images to latents: each strided convolution halves the sides."""

    def __init__(self, plan: Strided, channels: int):
        super().__init__()
        self.plan, self.channels, self.dim = plan, channels, plan.dim
        self.halvings = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=2, padding=1)
            for before, after in pairwise((channels, *plan.widths))
        )
        self.last = nn.Conv2d(plan.widths[-1], plan.dim, 3, padding=1)
        self.blocks = nn.ModuleList(Block(plan.dim, plan.inner) for _ in range(plan.blocks))

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d h w"]:
        features = images
        for halving in self.halvings:
            features = F.relu(halving(features))
        features = self.last(features)
        for block in self.blocks:
            features = block(features)
        return F.relu(features)


class StridedDecoder(Decoder):
    """Latents to images: each transposed convolution doubles the sides.

    The latents arrive by the convolution of whoever holds the decoder.
    """

    def __init__(self, plan: Strided, channels: int):
        super().__init__()
        self.plan, self.channels, self.dim = plan, channels, plan.dim
        self.blocks = nn.ModuleList(Block(plan.dim, plan.inner) for _ in range(plan.blocks))
        halves = (plan.dim // 2,) * (plan.stride.bit_length() - 2)
        self.doublings = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
            for before, after in pairwise((plan.dim, *halves, channels))
        )

    def forward(
        self, latents: Float[Tensor, "b d h w"], image_size: tuple[int, int]
    ) -> Float[Tensor, "b c H W"]:
        check_fit(self.plan, latents, image_size)
        features = latents
        for block in self.blocks:
            features = block(features)
        for doubling in self.doublings:
            features = doubling(F.relu(features))
        return features

    @property
    def last_layer(self) -> nn.Parameter:
        return self.doublings[-1].get_parameter("weight")


class Block(nn.Module):
    """Twice ReLU and convolution, 3x3 and 1x1, added to the input."""

    def __init__(self, dim: int, inner: int):
        super().__init__()
        self.conv1 = nn.Conv2d(dim, inner, 3, padding=1)
        self.conv2 = nn.Conv2d(inner, dim, 1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return features + self.conv2(F.relu(self.conv1(F.relu(features))))
