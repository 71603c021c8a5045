"""The residual convolutional autoencoder of VQGAN (Esser et al. 2021, arXiv:2012.09841, appendix table 7)."""

from dataclasses import dataclass

import torch.nn.functional as F
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
from genstack.errors import UserError


@dataclass(frozen=True)
class Convolutional(Pyramid):
    """Residual blocks on levels of halving size, attention where it is cheap; the defaults are VQGAN f16.

    It computes what the published VQGANs compute (padding, epsilon, order); their weights fit by renaming.

    Args:
        dim: channels of the latents that the encoder writes and the decoder reads.
        width: channels of the first level; any other level has `width` times its multiplier.
        multipliers: one per level, full resolution first; n levels shrink each side by 2^(n-1).
        blocks: residual blocks per level of the encoder; the decoder has one more.
        attention: levels with attention after every block, counted from 0; level l works at image size / 2^l.
            Published configs name sizes instead: `attn_resolutions: [16]` at `resolution: 256` is level 4.
        middle_attention: attention between the two blocks at the smallest size.
        groups: groups of every normalization; where they do not divide the channels, the most groups that do
            and have 4 channels or more.
        dropout: probability of dropping a feature inside a residual block, in training.
        checkpoint: forget activations in training, compute them again for gradients: less memory, more time.
        double: the encoder writes twice `dim` channels, as KL autoencoders do: means and log-variances.
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
                f"attention at level {wrong[0]} of {len(self.multipliers)}; "
                f"levels are numbered 0 (full resolution) to {len(self.multipliers) - 1}"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout {self.dropout} is no probability; use 0 or more and less than 1")

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
    """Residual blocks at one size, each followed by attention if the plan has it there."""

    def __init__(self, plan: Convolutional, level: int, dim_in: int, dim_out: int, blocks: int):
        super().__init__()
        self.checkpoint = plan.checkpoint
        self.blocks = nn.ModuleList(
            ResidualBlock(before, after, plan.groups, plan.dropout)
            for before, after in steps(dim_in, dim_out, blocks)
        )
        self.attentions = nn.ModuleList(
            Attention(dim_out, plan.groups) if level in plan.attention else nn.Identity()
            for _ in range(blocks)
        )

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            features = run(attention, run(block, features, self.checkpoint), self.checkpoint)
        return features


class Middle(nn.Module):
    """Two residual blocks at the smallest size, attention between them."""

    def __init__(self, plan: Convolutional):
        super().__init__()
        dim = plan.widths[-1]
        self.checkpoint = plan.checkpoint
        self.before = ResidualBlock(dim, dim, plan.groups, plan.dropout)
        self.attention = Attention(dim, plan.groups) if plan.middle_attention else nn.Identity()
        self.after = ResidualBlock(dim, dim, plan.groups, plan.dropout)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        for part in (self.before, self.attention, self.after):
            features = run(part, features, self.checkpoint)
        return features


class Attention(nn.Module):
    """Every position attends to all positions, with one head, added to the input."""

    def __init__(self, dim: int, groups: int):
        super().__init__()
        self.norm = normalization(dim, groups)
        self.query = nn.Conv2d(dim, dim, 1)
        self.key = nn.Conv2d(dim, dim, 1)
        self.value = nn.Conv2d(dim, dim, 1)
        self.out = ZeroConv(dim, dim, 1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        normed = self.norm(features)
        # copied, since attention over strided channels writes out a matrix of all pairs of positions
        query, key, value = (
            rearrange(part(normed), "b c h w -> b 1 (h w) c").contiguous()
            for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return features + self.out(rearrange(mixed, "b 1 (h w) c -> b c h w", h=features.shape[2]))
