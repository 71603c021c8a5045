"""Convolutional autoencoder of MaskGIT (arXiv:2202.04200) and VQGAN+ (arXiv:2409.16211)."""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genstack.compressor.networks.levels import Downsample, Level, Upsample, ZeroConv, normalization, steps
from genstack.compressor.networks.pyramid import Pyramid, PyramidDecoder, PyramidEncoder
from genstack.errors import UserError


@dataclass(frozen=True)
class MaskGITNetwork(Pyramid):
    """Residual blocks without attention and biases, as many in the decoder as in the encoder.

    It matches the published MaskGIT tokenizers. In blocks that change the number of channels, the shortcut is
    a 1x1 convolution of the block's result rather than of its input.

    Args:
        dim: channels of the latents.
        width: channels of a level with multiplier 1.
        multipliers: channels of each level in units of `width`, full resolution first; n levels reduce each
            side by 2^(n-1).
        blocks: residual blocks per level, and at the lowest resolution.
        downsampling: average of 2x2 pixels (MaskGIT) or strided convolution (VQGAN+).
        groups: groups of each normalization; if they do not divide the channels, the most groups that do,
            with at least 4 channels each.
        checkpoint: recompute activations in the backward pass (activation checkpointing), to save memory.
        unit: use pixels in [0, 1] inside the network, as in the published tokenizers.
        decoder_blocks: `blocks` of the decoder; null: as in the encoder.
    """

    dim: int = 256
    width: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks: int = 2
    downsampling: Literal["average", "convolution"] = "average"
    groups: int = 32
    checkpoint: bool = False
    unit: bool = False
    decoder_blocks: int | None = None

    def __post_init__(self) -> None:
        self.check("dim", "width", "blocks", "groups")
        if self.decoder_blocks is not None and self.decoder_blocks < 1:
            raise UserError(f"decoder_blocks {self.decoder_blocks} is too small; use 1 or more")
        if self.downsampling not in ("average", "convolution"):
            raise UserError(f"unknown downsampling '{self.downsampling}'; use average or convolution")

    def encoder(self, channels: int) -> PyramidEncoder:
        read = UnitReader if self.unit else nn.Conv2d
        return PyramidEncoder(
            first=read(channels, self.width, 3, padding=1, bias=False),
            levels=[self.level(*dims, self.blocks) for dims in self.down],
            downsamples=[self.downsample(dim) for dim in self.widths[:-1]],
            middle=self.level(self.widths[-1], self.widths[-1], self.blocks),
            norm=normalization(self.widths[-1], self.groups),
            last=nn.Conv2d(self.widths[-1], self.dim, 1),
        )

    def decoder(self, channels: int) -> PyramidDecoder:
        write = UnitWriter if self.unit else nn.Conv2d
        blocks = self.decoder_blocks or self.blocks
        return PyramidDecoder(
            self,
            first=nn.Conv2d(self.dim, self.widths[-1], 3, padding=1),
            middle=self.level(self.widths[-1], self.widths[-1], blocks),
            levels=[self.level(*dims, blocks) for dims in self.up],
            upsamples=[Upsample(dim) for dim in self.widths[:0:-1]],
            norm=normalization(self.widths[0], self.groups),
            last=write(self.widths[0], channels, 3, padding=1),
        )

    def level(self, dim_in: int, dim_out: int, blocks: int) -> Level:
        """Build the blocks at one resolution."""
        made = [UnbiasedBlock(*dims, self.groups) for dims in steps(dim_in, dim_out, blocks)]
        return Level(made, self.checkpoint)

    def downsample(self, dim: int) -> nn.Module:
        """Build a downsampling layer."""
        return nn.AvgPool2d(2) if self.downsampling == "average" else Downsample(dim)


class UnbiasedBlock(nn.Module):
    """Residual block without biases, whose shortcut projects the result rather than the input."""

    def __init__(self, dim_in: int, dim_out: int, groups: int):
        super().__init__()
        self.norm1 = normalization(dim_in, groups)
        self.conv1 = nn.Conv2d(dim_in, dim_out, 3, padding=1, bias=False)
        self.norm2 = normalization(dim_out, groups)
        # a projected zero would get no gradient
        ends = ZeroConv if dim_in == dim_out else nn.Conv2d
        self.conv2 = ends(dim_out, dim_out, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(dim_out, dim_out, 1, bias=False) if dim_in != dim_out else None

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        inner = self.conv1(F.silu(self.norm1(features)))
        inner = self.conv2(F.silu(self.norm2(inner)))
        return inner + (features if self.shortcut is None else self.shortcut(inner))


class UnitReader(nn.Conv2d):
    """Convolution that reads pixels in [0, 1]."""

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d H W"]:
        return super().forward((images + 1) / 2)


class UnitWriter(nn.Conv2d):
    """Convolution that returns pixels in [0, 1]."""

    def forward(self, features: Float[Tensor, "b d H W"]) -> Float[Tensor, "b c H W"]:
        return 2 * super().forward(features) - 1
