"""The convolutions of MaskGIT (Chang et al. 2022, arXiv:2202.04200) and VQGAN+ (arXiv:2409.16211)."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genstack.compressor.convolutional import Downsample, Upsample, normalization, run
from genstack.compressor.network import Decoder, Encoder, Network, tiles
from genstack.errors import UserError


@dataclass(frozen=True)
class MaskGITNetwork(Network):
    """Residual blocks without attention and without biases, as many in the decoder as in the encoder.

    It computes what the published MaskGIT tokenizers compute, their shortcut included: where a block changes
    the number of channels, what is added is a 1x1 convolution of the block's result rather than of its input.

    Args:
        dim: channels of the latents that the encoder writes and the decoder reads.
        width: channels of the first level; any other level has `width` times its multiplier.
        multipliers: one per level, full resolution first; n levels shrink each side by 2^(n-1).
        blocks: residual blocks per level, and at the smallest size between the halves.
        downsampling: how a level is halved: the average of 2x2 (MaskGIT), or a strided convolution (VQGAN+).
        groups: groups of every normalization; where they do not divide the channels, the most groups that do
            and have 4 channels or more.
        checkpoint: forget activations in training, compute them again for gradients: less memory, more time.
        unit: pixels within the network are in [0, 1], as in the published tokenizers, not in [-1, 1].
    """

    dim: int = 256
    width: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks: int = 2
    downsampling: Literal["average", "convolution"] = "average"
    groups: int = 32
    checkpoint: bool = False
    unit: bool = False

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("dim", "width", "blocks", "groups")}
        for name, count in {**counts, "multipliers": min(self.multipliers, default=0)}.items():
            if count < 1:
                raise UserError(f"{name} {getattr(self, name)} is too small; use 1 or more")
        if self.downsampling not in ("average", "convolution"):
            raise UserError(f"downsampling {self.downsampling!r} is unknown; use average or convolution")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, full resolution first."""
        return tuple(self.width * multiplier for multiplier in self.multipliers)

    @property
    def stride(self) -> int:
        """How many pixels one latent stands for, along each side."""
        return 2 ** (len(self.multipliers) - 1)

    def encoder(self, channels: int) -> "MaskGITEncoder":
        return MaskGITEncoder(self, channels)

    def decoder(self, channels: int) -> "MaskGITDecoder":
        return MaskGITDecoder(self, channels)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return tiles(height, width, self.stride, "stride", "fewer `multipliers`")


class MaskGITEncoder(Encoder):
    """Images to latents, fine to coarse."""

    def __init__(self, plan: MaskGITNetwork, channels: int):
        super().__init__()
        self.plan, self.channels, self.dim = plan, channels, plan.dim
        widths = plan.widths
        self.first = nn.Conv2d(channels, plan.width, 3, padding=1, bias=False)
        self.levels = nn.ModuleList(
            Blocks(plan, before, after) for before, after in pairwise((plan.width, *widths))
        )
        self.downsamples = nn.ModuleList(
            nn.AvgPool2d(2) if plan.downsampling == "average" else Downsample(dim) for dim in widths[:-1]
        )
        self.middle = Blocks(plan, widths[-1], widths[-1])
        self.norm = normalization(widths[-1], plan.groups)
        self.last = nn.Conv2d(widths[-1], plan.dim, 1)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d h w"]:
        features = self.first((images + 1) / 2 if self.plan.unit else images)
        for level, downsample in zip(self.levels, [*self.downsamples, nn.Identity()], strict=True):
            features = downsample(level(features))
        return self.last(F.silu(self.norm(self.middle(features))))


class MaskGITDecoder(Decoder):
    """Latents to images, coarse to fine; parts are stored in the order in which they run."""

    def __init__(self, plan: MaskGITNetwork, channels: int):
        super().__init__()
        self.plan, self.channels, self.dim = plan, channels, plan.dim
        widths = plan.widths[::-1]
        self.first = nn.Conv2d(plan.dim, widths[0], 3, padding=1)
        self.middle = Blocks(plan, widths[0], widths[0])
        self.levels = nn.ModuleList(
            Blocks(plan, before, after) for before, after in pairwise((widths[0], *widths))
        )
        self.upsamples = nn.ModuleList(Upsample(dim) for dim in widths[:-1])
        self.norm = normalization(widths[-1], plan.groups)
        self.last = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(
        self, latents: Float[Tensor, "b d h w"], image_size: tuple[int, int]
    ) -> Float[Tensor, "b c H W"]:
        if (grid := self.plan.grid(*image_size)) != tuple(latents.shape[-2:]):
            raise UserError(f"latents of {latents.shape[-2:]} do not fit images of {image_size}; use {grid}")
        features = self.middle(self.first(latents))
        for level, upsample in zip(self.levels, [*self.upsamples, nn.Identity()], strict=True):
            features = upsample(level(features))
        written = self.last(F.silu(self.norm(features)))
        return 2 * written - 1 if self.plan.unit else written

    @property
    def last_layer(self) -> nn.Parameter:
        return self.last.get_parameter("weight")


class Blocks(nn.Module):
    """Residual blocks at one size."""

    def __init__(self, plan: MaskGITNetwork, dim_in: int, dim_out: int):
        super().__init__()
        self.checkpoint = plan.checkpoint
        dims = (dim_in,) + (dim_out,) * plan.blocks
        self.blocks = nn.ModuleList(
            UnbiasedBlock(before, after, plan.groups) for before, after in pairwise(dims)
        )

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        for block in self.blocks:
            features = run(block, features, self.checkpoint)
        return features


class UnbiasedBlock(nn.Module):
    """Twice normalization, swish and convolution, added to the input, or to a projection of the result."""

    def __init__(self, dim_in: int, dim_out: int, groups: int):
        super().__init__()
        self.norm1 = normalization(dim_in, groups)
        self.conv1 = nn.Conv2d(dim_in, dim_out, 3, padding=1, bias=False)
        self.norm2 = normalization(dim_out, groups)
        self.conv2 = nn.Conv2d(dim_out, dim_out, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(dim_out, dim_out, 1, bias=False) if dim_in != dim_out else None

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        inner = self.conv1(F.silu(self.norm1(features)))
        inner = self.conv2(F.silu(self.norm2(inner)))
        return inner + (features if self.shortcut is None else self.shortcut(inner))
