"""The residual convolutional autoencoder of VQGAN (Esser et al. 2021, arXiv:2012.09841, appendix table 7)."""

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from genstack.compressor.network import Decoder, Encoder, Network, tiles
from genstack.errors import UserError


@dataclass(frozen=True)
class Convolutional(Network):
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
        counts = {name: getattr(self, name) for name in ("dim", "width", "blocks", "groups")}
        for name, count in {**counts, "multipliers": min(self.widths, default=0)}.items():
            if count < 1:
                raise UserError(f"{name} {getattr(self, name)} is too small; use 1 or more")
        if wrong := [level for level in self.attention if not 0 <= level < len(self.multipliers)]:
            raise UserError(
                f"attention at level {wrong[0]} of {len(self.multipliers)}; "
                f"levels are numbered 0 (full resolution) to {len(self.multipliers) - 1}"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout {self.dropout} is no probability; use 0 or more and less than 1")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, full resolution first."""
        return tuple(round(self.width * multiplier) for multiplier in self.multipliers)

    @property
    def stride(self) -> int:
        """How many pixels one latent stands for, along each side."""
        return 2 ** (len(self.multipliers) - 1)

    def encoder(self, channels: int) -> "ConvolutionalEncoder":
        return ConvolutionalEncoder(self, channels)

    def decoder(self, channels: int) -> "ConvolutionalDecoder":
        return ConvolutionalDecoder(self, channels)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return tiles(height, width, self.stride, "stride", "fewer `multipliers`")


class ConvolutionalEncoder(Encoder):
    """Images to latents, fine to coarse."""

    def __init__(self, plan: Convolutional, channels: int):
        super().__init__()
        self.plan, self.channels, self.dim = plan, channels, plan.dim * (2 if plan.double else 1)
        self.first = nn.Conv2d(channels, plan.width, 3, padding=1)
        self.levels = nn.ModuleList(
            Level(plan, level, dim_in, dim_out, plan.blocks)
            for level, (dim_in, dim_out) in enumerate(pairwise((plan.width, *plan.widths)))
        )
        self.downsamples = nn.ModuleList(Downsample(dim) for dim in plan.widths[:-1])
        self.middle = Middle(plan)
        self.norm = normalization(plan.widths[-1], plan.groups)
        self.last = nn.Conv2d(plan.widths[-1], self.dim, 3, padding=1)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d h w"]:
        features = self.first(images)
        for level, downsample in zip(self.levels, [*self.downsamples, nn.Identity()], strict=True):
            features = downsample(level(features))
        return self.last(F.silu(self.norm(self.middle(features))))


class ConvolutionalDecoder(Decoder):
    """Latents to images, coarse to fine; parts are stored in the order in which they run."""

    def __init__(self, plan: Convolutional, channels: int):
        super().__init__()
        self.plan, self.channels, self.dim = plan, channels, plan.dim
        widths = plan.widths[::-1]
        self.first = nn.Conv2d(plan.dim, widths[0], 3, padding=1)
        self.middle = Middle(plan)
        self.levels = nn.ModuleList(
            Level(plan, len(widths) - 1 - step, dim_in, dim_out, plan.blocks + 1)
            for step, (dim_in, dim_out) in enumerate(pairwise((widths[0], *widths)))
        )
        self.upsamples = nn.ModuleList(Upsample(dim) for dim in widths[:-1])
        self.norm = normalization(plan.widths[0], plan.groups)
        self.last = nn.Conv2d(plan.widths[0], channels, 3, padding=1)

    def forward(
        self, latents: Float[Tensor, "b d h w"], image_size: tuple[int, int]
    ) -> Float[Tensor, "b c H W"]:
        if (grid := self.plan.grid(*image_size)) != tuple(latents.shape[-2:]):
            raise UserError(f"latents of {latents.shape[-2:]} do not fit images of {image_size}; use {grid}")
        features = self.middle(self.first(latents))
        for level, upsample in zip(self.levels, [*self.upsamples, nn.Identity()], strict=True):
            features = upsample(level(features))
        return self.last(F.silu(self.norm(features)))

    @property
    def last_layer(self) -> nn.Parameter:
        return self.last.get_parameter("weight")


class Level(nn.Module):
    """Residual blocks at one size, each followed by attention if the plan has it there."""

    def __init__(self, plan: Convolutional, level: int, dim_in: int, dim_out: int, blocks: int):
        super().__init__()
        dims = (dim_in,) + (dim_out,) * blocks
        self.checkpoint = plan.checkpoint
        self.blocks = nn.ModuleList(
            ResidualBlock(before, after, plan.groups, plan.dropout) for before, after in pairwise(dims)
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


class ResidualBlock(nn.Module):
    """Twice normalization, swish and convolution, added to the input (or to its 1x1 convolution)."""

    def __init__(self, dim_in: int, dim_out: int, groups: int, dropout: float):
        super().__init__()
        self.norm1 = normalization(dim_in, groups)
        self.conv1 = nn.Conv2d(dim_in, dim_out, 3, padding=1)
        self.norm2 = normalization(dim_out, groups)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(dim_out, dim_out, 3, padding=1)
        self.shortcut = nn.Conv2d(dim_in, dim_out, 1) if dim_in != dim_out else nn.Identity()

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        inner = self.conv1(F.silu(self.norm1(features)))
        inner = self.conv2(self.dropout(F.silu(self.norm2(inner))))
        return self.shortcut(features) + inner


class Attention(nn.Module):
    """Every position attends to all positions, with one head, added to the input."""

    def __init__(self, dim: int, groups: int):
        super().__init__()
        self.norm = normalization(dim, groups)
        self.query = nn.Conv2d(dim, dim, 1)
        self.key = nn.Conv2d(dim, dim, 1)
        self.value = nn.Conv2d(dim, dim, 1)
        self.out = nn.Conv2d(dim, dim, 1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        normed = self.norm(features)
        # copied, since attention over strided channels writes out a matrix of all pairs of positions
        query, key, value = (
            rearrange(part(normed), "b c h w -> b 1 (h w) c").contiguous()
            for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return features + self.out(rearrange(mixed, "b 1 (h w) c -> b c h w", h=features.shape[2]))


class Downsample(nn.Module):
    """Half the height and width; the one pixel of padding is at the right and at the bottom."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, stride=2)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h//2 w//2"]:
        return self.conv(F.pad(features, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the height and width."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2*h 2*w"]:
        return self.conv(F.interpolate(features, scale_factor=2.0, mode="nearest"))


def run(part: nn.Module, features: Tensor, forget: bool) -> Tensor:
    """The part's output; its activations are computed again for gradients if they are to be forgotten."""
    if forget and part.training and not isinstance(part, nn.Identity):
        return recompute(part, features, use_reentrant=False)
    return part(features)


def normalization(dim: int, groups: int) -> nn.GroupNorm:
    """Group normalization with the published epsilon; fewer groups where `groups` do not divide `dim`."""
    if dim % groups:
        groups = max(
            count for count in range(1, groups) if dim % count == 0 and (count == 1 or dim // count >= 4)
        )
    return nn.GroupNorm(groups, dim, eps=1e-6)
