"""Transformer autoencoder of ViT-VQGAN (Yu et al. 2021, arXiv:2110.04627, section 3.1)."""

from dataclasses import dataclass

from einops import rearrange
from torch import nn

from genstack.compressor.network import Decoder, Encoder, Images, Latents, check_fit
from genstack.compressor.networks.patch_pixels import ToPatches
from genstack.compressor.networks.transformer import (
    Head,
    PatchEmbedding,
    PatchNetwork,
    Transformer,
    patch_grid,
    sine_positions,
)


@dataclass(frozen=True)
class ViT(PatchNetwork):
    """Transformer over patches with one latent per patch; the defaults are ViT-VQGAN small.

    It accepts images of any size that its patches tile. As in the paper, use a quantizer of few channels and
    unit vectors with the same `dim` and `projection: 0`.
    """

    def encoder(self, channels: int) -> "ViTEncoder":
        return ViTEncoder(self, channels)

    def decoder(self, channels: int) -> "ViTDecoder":
        return ViTDecoder(self, channels)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return patch_grid(height, width, self.patch)


class ViTEncoder(Encoder):
    """Encoder from patches to latents."""

    def __init__(self, config: ViT, channels: int):
        super().__init__()
        self.config, self.channels, self.dim = config, channels, config.dim
        self.patches = PatchEmbedding(channels, config.patch, config.width)
        self.transformer = Transformer(config.width, config.depth, config.heads, config.checkpoint)
        self.head = Head(config.width, config.dim)

    def forward(self, images: Images) -> Latents:
        rows, _ = self.config.grid(*images.shape[-2:])
        latents = self.head(self.transformer(self.patches(images)))
        return rearrange(latents, "b (h w) d -> b d h w", h=rows)


class ViTDecoder(Decoder):
    """Decoder from latents to patches."""

    def __init__(self, config: ViT, channels: int):
        super().__init__()
        self.config, self.channels, self.dim = config, channels, config.dim
        self.first = nn.Linear(config.dim, config.width)
        self.transformer = Transformer(config.width, config.depth, config.heads, config.checkpoint)
        self.pixels = ToPatches(channels, config.patch, config.width)

    def forward(self, latents: Latents, image_size: tuple[int, int]) -> Images:
        check_fit(self.config, latents, image_size)
        tokens = self.first(rearrange(latents, "b d h w -> b (h w) d"))
        rows, columns = latents.shape[-2:]
        tokens = tokens + sine_positions(rows, columns, self.config.width, latents.device)
        return self.pixels(self.transformer(tokens), image_size)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.pixels.last_layer
