"""Strided convolutions and residual blocks, as in VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937)."""

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genstack.compressor.network import Decoder, Encoder, Images, Latents, Network, check_fit, tiles
from genstack.errors import UserError


@dataclass(frozen=True)
class Strided(Network):
    """Strided 4x4 convolutions and residual blocks without normalization; small and fast.

    It is also the network of each grid in a `HierarchicalAutoencoder`; the defaults are VQ-VAE-2's
    (arXiv:1906.00446, table 4).

    Args:
        dim: channels of features and latents.
        stride: pixels per latent along each side; a power of 2.
        blocks: residual blocks of the encoder and of the decoder.
        inner: channels inside residual blocks.
    """

    dim: int = 128
    stride: int = 4
    blocks: int = 2
    inner: int = 32

    def __post_init__(self) -> None:
        for name, least in {"dim": 2, "blocks": 0, "inner": 1}.items():
            if getattr(self, name) < least:
                raise UserError(f"{name} {getattr(self, name)} is out of range; it must be at least {least}")
        if self.stride < 2 or self.stride & (self.stride - 1):
            raise UserError(f"stride {self.stride} must be a power of 2, such as 2, 4, 8 or 16")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels after each strided convolution, fine to coarse; only the last has all `dim`."""
        downsamples = self.stride.bit_length() - 1
        return (self.dim // 2,) * max(1, downsamples - 1) + (self.dim,) * (downsamples > 1)

    def encoder(self, channels: int) -> "StridedEncoder":
        return StridedEncoder(self, channels)

    def decoder(self, channels: int) -> "StridedDecoder":
        return StridedDecoder(self, channels)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return tiles(height, width, self.stride, "stride", "another `stride`")


class StridedEncoder(Encoder):
    """Encoder; each strided convolution halves the sides."""

    def __init__(self, config: Strided, channels: int):
        super().__init__()
        self.config, self.channels, self.dim = config, channels, config.dim
        self.downsamples = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=2, padding=1)
            for before, after in pairwise((channels, *config.widths))
        )
        self.last = nn.Conv2d(config.widths[-1], config.dim, 3, padding=1)
        self.blocks = nn.ModuleList(Block(config.dim, config.inner) for _ in range(config.blocks))

    def forward(self, images: Images) -> Latents:
        features = images
        for downsample in self.downsamples:
            features = F.relu(downsample(features))
        features = self.last(features)
        for block in self.blocks:
            features = block(features)
        return F.relu(features)


class StridedDecoder(Decoder):
    """Decoder; each transposed convolution doubles the sides."""

    def __init__(self, config: Strided, channels: int):
        super().__init__()
        self.config, self.channels, self.dim = config, channels, config.dim
        self.blocks = nn.ModuleList(Block(config.dim, config.inner) for _ in range(config.blocks))
        halves = (config.dim // 2,) * (config.stride.bit_length() - 2)
        self.upsamples = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
            for before, after in pairwise((config.dim, *halves, channels))
        )

    def forward(self, latents: Latents, image_size: tuple[int, int]) -> Images:
        check_fit(self.config, latents, image_size)
        features = latents
        for block in self.blocks:
            features = block(features)
        for upsample in self.upsamples:
            features = upsample(F.relu(features))
        return features

    @property
    def last_layer(self) -> nn.Parameter:
        return self.upsamples[-1].get_parameter("weight")


class Block(nn.Module):
    """Residual block of ReLU, 3x3 convolution, ReLU and 1x1 convolution."""

    def __init__(self, dim: int, inner: int):
        super().__init__()
        self.conv1 = nn.Conv2d(dim, inner, 3, padding=1)
        self.conv2 = nn.Conv2d(inner, dim, 1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return features + self.conv2(F.relu(self.conv1(F.relu(features))))
