"""One-dimensional tokenizer TiTok (Yu et al. 2024, arXiv:2406.07550, section 3.2)."""

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from genstack.compressor.network import Decoder, Encoder, Images, Latents, check_fit
from genstack.compressor.networks.patch_pixels import PatchPixels, SeparatePatches
from genstack.compressor.networks.transformer import (
    Head,
    PatchEmbedding,
    PatchNetwork,
    PositionEmbedding,
    Transformer,
    check_config,
    learned_tokens,
    patch_grid,
)
from genstack.errors import UserError


@dataclass(frozen=True)
class TiTok(PatchNetwork):
    """Transformer from patches to a 1-D sequence of latents, and back; the defaults are TiTok-S.

    The encoder reads patches and learned latent tokens, and returns the latter. The decoder reads these and a
    mask token per patch. The number of latents does not depend on the image size.

    Args:
        tokens: number of latents.
        decoder_patch: `patch` of the decoder; null for the encoder's.
        decoder_width: `width` of the decoder, with as many channels per head; null for the encoder's.
        decoder_depth: `depth` of the decoder; null for the encoder's.
        image_size: height and width of all images, for learned positions, class tokens and norms as in
            1d-tokenizer; null for sine positions and any size.
        pixels: conversion of tokens to pixels: SeparatePatches, SmoothedPatches or SoftCodes.
        scrambled: swap the two axes of the encoder's latent tokens in memory, as the two-stage tokenizers of
            1d-tokenizer do by mistake.
        double: the encoder returns twice `dim` channels, means and log-variances, as in KL autoencoders.
    """

    dim: int = 12
    patch: int = 16
    tokens: int = 128
    decoder_patch: int | None = None
    decoder_width: int | None = None
    decoder_depth: int | None = None
    image_size: tuple[int, int] | None = None
    pixels: PatchPixels = SeparatePatches()  # noqa: RUF009 - a frozen config
    scrambled: bool = False
    double: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens < 1:
            raise UserError(f"tokens {self.tokens} is out of range; it must be at least 1")
        width, heads = self.decoder_width or self.width, self.decoder_heads
        check_config(patch=self.patch_out, width=width, depth=self.decoder_depth or self.depth, heads=heads)
        if self.image_size is not None:
            self.grid(*self.image_size)

    @property
    def decoder_heads(self) -> int:
        """Attention heads of the decoder."""
        return (self.decoder_width or self.width) * self.heads // self.width

    @property
    def patch_out(self) -> int:
        """Side of the decoder's patches in pixels."""
        return self.patch if self.decoder_patch is None else self.decoder_patch

    def encoder(self, channels: int) -> "TiTokEncoder":
        return TiTokEncoder(self, channels)

    def decoder(self, channels: int) -> "TiTokDecoder":
        return TiTokDecoder(self, channels)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        if self.image_size not in (None, (height, width)):
            size = "x".join(map(str, self.image_size or ()))
            raise UserError(f"image size {height}x{width} does not match the learned positions; use {size}")
        for patch in (self.patch, self.patch_out):
            patch_grid(height, width, patch)
        return 1, self.tokens

    def patches(self, patch: int) -> tuple[int, int] | None:
        """Return rows and columns of patches with learned positions; None without them."""
        return None if self.image_size is None else patch_grid(*self.image_size, patch)


class ClassToken(nn.Module):
    """Class token before all others, and a normalization of all tokens (CLIP, arXiv:2103.00020)."""

    def __init__(self, width: int):
        super().__init__()
        self.token = learned_tokens(1, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Float[Tensor, "b n width"]) -> Float[Tensor, "b n+1 width"]:
        token = repeat(self.token.weight, "n width -> b n width", b=len(tokens))
        return self.norm(torch.cat([token, tokens], dim=1))


class TiTokEncoder(Encoder):
    """Encoder from patches and latent tokens to a 1-D sequence of latents."""

    def __init__(self, config: TiTok, channels: int):
        super().__init__()
        self.config, self.channels, self.dim = config, channels, config.dim * (2 if config.double else 1)
        self.patches = PatchEmbedding(channels, config.patch, config.width, config.patches(config.patch))
        self.latent_tokens = learned_tokens(config.tokens, config.width)
        self.class_token = None if config.image_size is None else ClassToken(config.width)
        self.transformer = Transformer(config.width, config.depth, config.heads, config.checkpoint)
        head = Head if config.image_size is None else nn.Linear
        self.head = head(config.width, self.dim)

    def forward(self, images: Images) -> Float[Tensor, "b d 1 n"]:
        self.config.grid(*images.shape[-2:])
        patches = self.patches(images)
        latent_tokens = repeat(self.latent_tokens.weight, "n width -> b n width", b=len(images))
        tokens = torch.cat([patches, latent_tokens], dim=1)
        if self.class_token is not None:
            tokens = self.class_token(tokens)
        tokens = self.transformer(tokens)[:, -self.config.tokens :]
        if self.config.scrambled:
            memory = rearrange(tokens, "b n width -> b (n width)")
            tokens = rearrange(memory, "b (width n) -> b n width", n=self.config.tokens)
        return rearrange(self.head(tokens), "b n d -> b d 1 n")


class TiTokDecoder(Decoder):
    """Decoder from mask tokens and a 1-D sequence of latents to patches."""

    def __init__(self, config: TiTok, channels: int):
        super().__init__()
        width = config.decoder_width or config.width
        self.config, self.channels, self.dim = config, channels, config.dim
        self.first = nn.Linear(config.dim, width)
        self.latent_positions = learned_tokens(config.tokens, width)
        self.mask_token = learned_tokens(1, width)
        self.positions = PositionEmbedding(width, config.patches(config.patch_out))
        self.class_token = None if config.image_size is None else ClassToken(width)
        depth = config.decoder_depth or config.depth
        self.transformer = Transformer(width, depth, config.decoder_heads, config.checkpoint)
        self.pixels = config.pixels.writer(channels, config.patch_out, width)

    def forward(self, latents: Latents, image_size: tuple[int, int]) -> Images:
        check_fit(self.config, latents, image_size)
        rows, columns = patch_grid(*image_size, self.config.patch_out)
        mask_tokens = self.mask_token.weight + self.positions(rows, columns, latents.device)
        tokens = self.first(rearrange(latents, "b d 1 n -> b n d")) + self.latent_positions.weight
        tokens = torch.cat([repeat(mask_tokens, "n width -> b n width", b=len(latents)), tokens], dim=1)
        if self.class_token is not None:
            tokens = self.class_token(tokens)
        first_patch = tokens.shape[1] - self.config.tokens - rows * columns
        return self.pixels(self.transformer(tokens)[:, first_patch : -self.config.tokens], image_size)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.pixels.last_layer
