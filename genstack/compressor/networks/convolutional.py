"""Residual convolutional autoencoder of VQGAN (Esser et al. 2021, arXiv:2012.09841, appendix table 7)."""

from dataclasses import dataclass

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from genstack.compressor.networks.levels import (
    Downsample,
    ResidualBlock,
    Upsample,
    ZeroConv,
    normalization,
    run,
    steps,
)
from genstack.compressor.networks.pyramid import Pyramid, PyramidDecoder, PyramidEncoder
from genstack.dot_product_attention import dot_product_attention
from genstack.errors import UserError


@dataclass(frozen=True)
class Convolutional(Pyramid):
    """Residual blocks at halving resolutions, with attention at low ones; the defaults are VQGAN f16.

    It matches published VQGANs in padding, epsilon and order, so their weights load by renaming.

    Args:
        dim: channels of the latents.
        width: channels of a level with multiplier 1.
        multipliers: channels of each level in units of `width`, full resolution first; n levels reduce each
            side by 2^(n-1).
        blocks: residual blocks per level of the encoder; the decoder has one more per level.
        attention: levels with attention after each block, counted from 0; level l works at image size / 2^l.
            `attn_resolutions: [16]` at `resolution: 256` in published configs is level 4.
        middle_attention: attention between the two blocks at the lowest resolution.
        groups: groups of each normalization; if they do not divide the channels, the most groups that do,
            with at least 4 channels each.
        dropout: dropout probability in residual blocks.
        checkpoint: recompute activations in the backward pass (activation checkpointing), to save memory.
        double: the encoder returns twice `dim` channels, means and log-variances, as in KL autoencoders.
    """

    dim: int = 256
    width: int = 128
    multipliers: tuple[int | float, ...] = (1, 1, 2, 2, 4)
    blocks: int = 2
    attention: tuple[int, ...] = (4,)
    middle_attention: bool = True
    groups: int = 32
    dropout: float = 0.0
    checkpoint: bool = False
    double: bool = False

    def __post_init__(self) -> None:
        self.check("dim", "width", "blocks", "groups")
        if wrong := [level for level in self.attention if not 0 <= level < len(self.multipliers)]:
            raise UserError(
                f"attention level {wrong[0]} is out of range; levels are 0 (full resolution) to "
                f"{len(self.multipliers) - 1}"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout {self.dropout} is out of range; it must be at least 0 and below 1")

    def encoder(self, channels: int) -> PyramidEncoder:
        return PyramidEncoder(
            first=nn.Conv2d(channels, self.width, 3, padding=1),
            levels=[AttentiveLevel(self, level, *dims, self.blocks) for level, dims in enumerate(self.down)],
            downsamples=[Downsample(dim) for dim in self.widths[:-1]],
            middle=Middle(self),
            norm=normalization(self.widths[-1], self.groups),
            last=nn.Conv2d(self.widths[-1], self.dim * (2 if self.double else 1), 3, padding=1),
        )

    def decoder(self, channels: int) -> PyramidDecoder:
        top = len(self.multipliers) - 1
        return PyramidDecoder(
            self,
            first=nn.Conv2d(self.dim, self.widths[-1], 3, padding=1),
            middle=Middle(self),
            levels=[
                AttentiveLevel(self, top - step, *dims, self.blocks + 1) for step, dims in enumerate(self.up)
            ],
            upsamples=[Upsample(dim) for dim in self.widths[:0:-1]],
            norm=normalization(self.widths[0], self.groups),
            last=nn.Conv2d(self.widths[0], channels, 3, padding=1),
        )


class AttentiveLevel(nn.Module):
    """Residual blocks at one resolution, followed by attention on levels that have it."""

    def __init__(self, config: Convolutional, level: int, dim_in: int, dim_out: int, blocks: int):
        super().__init__()
        self.checkpoint = config.checkpoint
        self.blocks = nn.ModuleList(
            ResidualBlock(before, after, config.groups, config.dropout)
            for before, after in steps(dim_in, dim_out, blocks)
        )
        self.attentions = nn.ModuleList(
            Attention(dim_out, config.groups) if level in config.attention else nn.Identity()
            for _ in range(blocks)
        )

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            features = run(attention, run(block, features, self.checkpoint), self.checkpoint)
        return features


class Middle(nn.Module):
    """Two residual blocks at the lowest resolution, with attention between them."""

    def __init__(self, config: Convolutional):
        super().__init__()
        dim = config.widths[-1]
        self.checkpoint = config.checkpoint
        self.before = ResidualBlock(dim, dim, config.groups, config.dropout)
        self.attention = Attention(dim, config.groups) if config.middle_attention else nn.Identity()
        self.after = ResidualBlock(dim, dim, config.groups, config.dropout)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        for part in (self.before, self.attention, self.after):
            features = run(part, features, self.checkpoint)
        return features


class Attention(nn.Module):
    """Self-attention over all positions with one head, added to the input."""

    def __init__(self, dim: int, groups: int):
        super().__init__()
        self.norm = normalization(dim, groups)
        self.query = nn.Conv2d(dim, dim, 1)
        self.key = nn.Conv2d(dim, dim, 1)
        self.value = nn.Conv2d(dim, dim, 1)
        self.out = ZeroConv(dim, dim, 1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        normed = self.norm(features)
        # contiguous, since attention on strided channels falls back to the matrix of all pairs of positions
        query, key, value = (
            rearrange(part(normed), "b c h w -> b 1 (h w) c").contiguous()
            for part in (self.query, self.key, self.value)
        )
        mixed = dot_product_attention(query, key, value)
        return features + self.out(rearrange(mixed, "b 1 (h w) c -> b c h w", h=features.shape[2]))
