"""Convolutional autoencoder of MAGVIT-v2 (arXiv:2310.05737), as in Open-MAGVIT2 (arXiv:2409.04410)."""

from dataclasses import dataclass

from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from genstack.compressor.networks.levels import Level, ResidualBlock, normalization, steps
from genstack.compressor.networks.pyramid import Pyramid, PyramidDecoder, PyramidEncoder


@dataclass(frozen=True)
class MAGVITNetwork(Pyramid):
    """Residual blocks without attention, and adaptive group normalization in the decoder.

    Before each level, the decoder scales and shifts its features by standard deviations and means of the
    latents over the image. It matches the published Open-MAGVIT2 tokenizers.

    Args:
        dim: channels of the latents.
        width: channels of a level with multiplier 1.
        multipliers: channels of each level in units of `width`, full resolution first; n levels reduce each
            side by 2^(n-1).
        blocks: residual blocks per level, and at the lowest resolution.
        groups: groups of each normalization; if they do not divide the channels, the most groups that do,
            with at least 4 channels each.
        checkpoint: recompute activations in the backward pass (activation checkpointing), to save memory.
    """

    dim: int = 18
    width: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks: int = 4
    groups: int = 32
    checkpoint: bool = False

    def __post_init__(self) -> None:
        self.check("dim", "width", "blocks", "groups")

    def encoder(self, channels: int) -> PyramidEncoder:
        return PyramidEncoder(
            first=nn.Conv2d(channels, self.width, 3, padding=1, bias=False),
            levels=[self.level(*dims) for dims in self.down],
            downsamples=[nn.Conv2d(dim, dim, 3, stride=2, padding=1) for dim in self.widths[:-1]],
            middle=self.level(self.widths[-1], self.widths[-1]),
            norm=normalization(self.widths[-1], self.groups),
            last=nn.Conv2d(self.widths[-1], self.dim, 1),
        )

    def decoder(self, channels: int) -> PyramidDecoder:
        return PyramidDecoder(
            self,
            first=nn.Conv2d(self.dim, self.widths[-1], 3, padding=1),
            middle=self.level(self.widths[-1], self.widths[-1]),
            adaptive_norms=[AdaptiveGroupNorm(self.dim, width, self.groups) for width, _ in self.up],
            levels=[self.level(*dims) for dims in self.up],
            upsamples=[DepthToSpace(dim) for dim in self.widths[:0:-1]],
            norm=normalization(self.widths[0], self.groups),
            last=nn.Conv2d(self.widths[0], channels, 3, padding=1),
        )

    def level(self, dim_in: int, dim_out: int) -> Level:
        """Build the blocks at one resolution."""
        dims = steps(dim_in, dim_out, self.blocks)
        blocks = [ResidualBlock(before, after, self.groups, bias=False) for before, after in dims]
        return Level(blocks, self.checkpoint)


class AdaptiveGroupNorm(nn.Module):
    """Group normalization with scale and shift from the latents."""

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
        # one position has no deviation; published weights divide by the number of positions minus one
        spread = (places.var(dim=-1, correction=min(1, places.shape[-1] - 1)) + self.norm.eps).sqrt()
        scale, shift = self.scale(spread), self.shift(reduce(places, "b d n -> b d", "mean"))
        return scale[..., None, None] * self.norm(features) + shift[..., None, None]


class DepthToSpace(nn.Module):
    """Upsampling by a convolution to four times the channels, rearranged to 2x2 pixels."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, 4 * dim, 3, padding=1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2*h 2*w"]:
        return rearrange(self.conv(features), "b (y x c) h w -> b c (h y) (w x)", y=2, x=2)
