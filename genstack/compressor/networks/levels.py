"""Building blocks of pyramids, after VQGAN (arXiv:2012.09841, table 7)."""

from collections.abc import Iterable, Iterator
from itertools import chain, pairwise, repeat

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute


class Level(nn.Module):
    """Sequence of blocks at one resolution."""

    def __init__(self, blocks: Iterable[nn.Module], checkpoint: bool):
        super().__init__()
        self.checkpoint = checkpoint
        self.blocks = nn.ModuleList(blocks)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        for block in self.blocks:
            features = run(block, features, self.checkpoint)
        return features


class ZeroConv(nn.Conv2d):
    """Convolution initialized to zero, so that a branch that ends in it adds nothing at first."""

    def reset_parameters(self) -> None:
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class MeanConv(ZeroConv):
    """Convolution initialized to the mean of 2x2 pixels in each channel."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.weight.diagonal()[:2, :2] = 1 / 4


class CopyConv(ZeroConv):
    """Convolution initialized to the identity."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.weight.device.type != "meta":  # torch 2.9 walks over all channels there, too
            nn.init.dirac_(self.weight)


class ResidualBlock(nn.Module):
    """Residual block of two normalizations, swishes and convolutions."""

    def __init__(self, dim_in: int, dim_out: int, groups: int, dropout: float = 0.0, bias: bool = True):
        super().__init__()
        self.norm1 = normalization(dim_in, groups)
        self.conv1 = nn.Conv2d(dim_in, dim_out, 3, padding=1, bias=bias)
        self.norm2 = normalization(dim_out, groups)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = ZeroConv(dim_out, dim_out, 3, padding=1, bias=bias)
        self.shortcut = nn.Conv2d(dim_in, dim_out, 1, bias=bias) if dim_in != dim_out else nn.Identity()

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        inner = self.conv1(F.silu(self.norm1(features)))
        inner = self.conv2(self.dropout(F.silu(self.norm2(inner))))
        return self.shortcut(features) + inner


class Downsample(nn.Module):
    """Strided convolution, padded by one pixel at the right and bottom."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv = MeanConv(dim, dim, 3, stride=2)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h//2 w//2"]:
        return self.conv(F.pad(features, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour upsampling and a convolution."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv = CopyConv(dim, dim, 3, padding=1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2*h 2*w"]:
        return self.conv(F.interpolate(features, scale_factor=2.0, mode="nearest"))


def steps(dim_in: int, dim_out: int, blocks: int) -> Iterator[tuple[int, int]]:
    """Return input and output channels of each block of a level; the first block changes them."""
    return pairwise(chain((dim_in,), repeat(dim_out, blocks)))


def run(part: nn.Module, features: Tensor, checkpoint: bool) -> Tensor:
    """Run a module, with activation checkpointing if requested."""
    if checkpoint and part.training and not isinstance(part, nn.Identity):
        return recompute(part, features, use_reentrant=False)
    return part(features)


def normalization(dim: int, groups: int) -> nn.GroupNorm:
    """Build a group normalization; if `groups` do not divide `dim`, it has the most groups that do."""
    if dim % groups:
        groups = max(
            count for count in range(1, groups) if dim % count == 0 and (count == 1 or dim // count >= 4)
        )
    return nn.GroupNorm(groups, dim, eps=1e-6)
