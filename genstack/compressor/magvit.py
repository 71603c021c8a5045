"""The convolutions of MAGVIT-v2 (arXiv:2310.05737), as Open-MAGVIT2 has them (arXiv:2409.04410)."""

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from genstack.compressor.convolutional import normalization, run
from genstack.compressor.network import Decoder, Encoder, Network, tiles
from genstack.errors import UserError


@dataclass(frozen=True)
class MAGVITNetwork(Network):
    """Residual blocks without attention; the decoder looks at the latents again before each of its levels.

    There it normalizes its features, and scales and shifts each channel by what the latents' channels are
    like over the whole image: their deviations and means. It computes what the published Open-MAGVIT2
    tokenizers compute.

    Args:
        dim: channels of the latents that the encoder writes and the decoder reads.
        width: channels of the first level; any other level has `width` times its multiplier.
        multipliers: one per level, full resolution first; n levels shrink each side by 2^(n-1).
        blocks: residual blocks per level, and at the smallest size.
        groups: groups of every normalization; where they do not divide the channels, the most groups that do
            and have 4 channels or more.
        checkpoint: forget activations in training, compute them again for gradients: less memory, more time.
    """

    dim: int = 18
    width: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks: int = 4
    groups: int = 32
    checkpoint: bool = False

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("dim", "width", "blocks", "groups")}
        for name, count in {**counts, "multipliers": min(self.multipliers, default=0)}.items():
            if count < 1:
                raise UserError(f"{name} {getattr(self, name)} is too small; use 1 or more")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, full resolution first."""
        return tuple(self.width * multiplier for multiplier in self.multipliers)

    @property
    def stride(self) -> int:
        """How many pixels one latent stands for, along each side."""
        return 2 ** (len(self.multipliers) - 1)

    def encoder(self, channels: int) -> "MAGVITEncoder":
        return MAGVITEncoder(self, channels)

    def decoder(self, channels: int) -> "MAGVITDecoder":
        return MAGVITDecoder(self, channels)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return tiles(height, width, self.stride, "stride", "fewer `multipliers`")


class MAGVITEncoder(Encoder):
    """Images to latents, fine to coarse."""

    def __init__(self, plan: MAGVITNetwork, channels: int):
        super().__init__()
        self.plan, self.channels, self.dim = plan, channels, plan.dim
        widths = plan.widths
        self.first = nn.Conv2d(channels, plan.width, 3, padding=1, bias=False)
        self.levels = nn.ModuleList(
            PlainBlocks(plan, before, after) for before, after in pairwise((plan.width, *widths))
        )
        self.downsamples = nn.ModuleList(nn.Conv2d(dim, dim, 3, stride=2, padding=1) for dim in widths[:-1])
        self.middle = PlainBlocks(plan, widths[-1], widths[-1])
        self.norm = normalization(widths[-1], plan.groups)
        self.last = nn.Conv2d(widths[-1], plan.dim, 1)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d h w"]:
        features = self.first(images)
        for level, downsample in zip(self.levels, [*self.downsamples, nn.Identity()], strict=True):
            features = downsample(level(features))
        return self.last(F.silu(self.norm(self.middle(features))))


class MAGVITDecoder(Decoder):
    """Latents to images, coarse to fine; parts are stored in the order in which they run."""

    def __init__(self, plan: MAGVITNetwork, channels: int):
        super().__init__()
        self.plan, self.channels, self.dim = plan, channels, plan.dim
        widths = plan.widths[::-1]
        steps = list(pairwise((widths[0], *widths)))
        self.first = nn.Conv2d(plan.dim, widths[0], 3, padding=1)
        self.middle = PlainBlocks(plan, widths[0], widths[0])
        self.looks = nn.ModuleList(Look(plan.dim, before, plan.groups) for before, _ in steps)
        self.levels = nn.ModuleList(PlainBlocks(plan, before, after) for before, after in steps)
        self.upsamples = nn.ModuleList(Unfold(dim) for dim in widths[:-1])
        self.norm = normalization(widths[-1], plan.groups)
        self.last = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(
        self, latents: Float[Tensor, "b d h w"], image_size: tuple[int, int]
    ) -> Float[Tensor, "b c H W"]:
        if (grid := self.plan.grid(*image_size)) != tuple(latents.shape[-2:]):
            raise UserError(f"latents of {latents.shape[-2:]} do not fit images of {image_size}; use {grid}")
        features = self.middle(self.first(latents))
        for look, level, upsample in zip(
            self.looks, self.levels, [*self.upsamples, nn.Identity()], strict=True
        ):
            features = upsample(level(look(features, latents)))
        return self.last(F.silu(self.norm(features)))

    @property
    def last_layer(self) -> nn.Parameter:
        return self.last.get_parameter("weight")


class PlainBlocks(nn.Module):
    """Residual blocks at one size."""

    def __init__(self, plan: MAGVITNetwork, dim_in: int, dim_out: int):
        super().__init__()
        self.checkpoint = plan.checkpoint
        dims = (dim_in,) + (dim_out,) * plan.blocks
        self.blocks = nn.ModuleList(
            PlainBlock(before, after, plan.groups) for before, after in pairwise(dims)
        )

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        for block in self.blocks:
            features = run(block, features, self.checkpoint)
        return features


class PlainBlock(nn.Module):
    """Twice normalization, swish and convolution, without biases, added to the input or its projection."""

    def __init__(self, dim_in: int, dim_out: int, groups: int):
        super().__init__()
        self.norm1 = normalization(dim_in, groups)
        self.conv1 = nn.Conv2d(dim_in, dim_out, 3, padding=1, bias=False)
        self.norm2 = normalization(dim_out, groups)
        self.conv2 = nn.Conv2d(dim_out, dim_out, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(dim_in, dim_out, 1, bias=False) if dim_in != dim_out else nn.Identity()

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        inner = self.conv1(F.silu(self.norm1(features)))
        inner = self.conv2(F.silu(self.norm2(inner)))
        return inner + self.shortcut(features)


class Look(nn.Module):
    """Group normalization whose scale and shift come from the latents: adaptive, in the paper's words."""

    def __init__(self, dim: int, width: int, groups: int):
        super().__init__()
        norm = normalization(width, groups)
        self.norm = nn.GroupNorm(norm.num_groups, width, eps=norm.eps, affine=False)
        self.scale = nn.Linear(dim, width)
        self.shift = nn.Linear(dim, width)

    def forward(
        self, features: Float[Tensor, "b c h w"], latents: Float[Tensor, "b d y x"]
    ) -> Float[Tensor, "b c h w"]:
        places = rearrange(latents, "b d y x -> b d (y x)")
        # one place has no deviation; the published ones divide by the number of places less one
        spread = (places.var(dim=-1, correction=min(1, places.shape[-1] - 1)) + self.norm.eps).sqrt()
        scale, shift = self.scale(spread), self.shift(reduce(places, "b d n -> b d", "mean"))
        return scale[..., None, None] * self.norm(features) + shift[..., None, None]


class Unfold(nn.Module):
    """Twice the height and width: a convolution writes four channels for each, one for each pixel of 2x2."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, 4 * dim, 3, padding=1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2*h 2*w"]:
        return rearrange(self.conv(features), "b (y x c) h w -> b c (h y) (w x)", y=2, x=2)
