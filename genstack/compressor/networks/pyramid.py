"""Encoders and decoders with levels of halving resolution, as in VQGAN (arXiv:2012.09841, table 7)."""

from collections.abc import Callable, Iterable
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genstack.compressor.network import Decoder, Encoder, Images, Latents, Network, check_fit, tiles
from genstack.errors import UserError


class Pyramid(Network):
    """Settings of a network with levels of halving resolution."""

    width: int
    multipliers: tuple[int | float, ...]
    blocks: int

    def check(self, *counts: str) -> None:
        """Check that `counts` and the channels of all levels are at least 1."""
        found = {name: getattr(self, name) for name in counts}
        for name, count in {**found, "multipliers": min(self.widths, default=0)}.items():
            if count < 1:
                raise UserError(f"{name} {getattr(self, name)} is out of range; it must be at least 1")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, full resolution first."""
        return tuple(round(self.width * multiplier) for multiplier in self.multipliers)

    @property
    def down(self) -> list[tuple[int, int]]:
        """Input and output channels of each level of the encoder."""
        return list(pairwise((self.width, *self.widths)))

    @property
    def up(self) -> list[tuple[int, int]]:
        """Input and output channels of each level of the decoder, lowest resolution first."""
        return list(pairwise((self.widths[-1], *self.widths[::-1])))

    @property
    def stride(self) -> int:
        """Pixels per latent along each side."""
        return 2 ** (len(self.multipliers) - 1)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return tiles(height, width, self.stride, "stride", "fewer `multipliers`")


class PyramidEncoder(Encoder):
    """Encoder; arguments are in the order in which modules are built and registered.

    Args:
        first: layer from images to features.
        levels: one per resolution, full resolution first.
        downsamples: layers between levels.
        middle: blocks at the lowest resolution.
        norm: normalization before the last swish.
        last: layer from features to latents.
    """

    def __init__(
        self,
        first: nn.Module,
        levels: Iterable[nn.Module],
        downsamples: Iterable[nn.Module],
        middle: nn.Module,
        norm: nn.Module,
        last: nn.Conv2d,
    ):
        super().__init__()
        self.dim = last.out_channels
        self.first = first
        self.levels = nn.ModuleList(levels)
        self.downsamples = nn.ModuleList(downsamples)
        self.middle, self.norm, self.last = middle, norm, last

    def forward(self, images: Images) -> Latents:
        features = self.first(images)
        for level, downsample in zip(self.levels, [*self.downsamples, nn.Identity()], strict=True):
            features = downsample(level(features))
        return self.last(F.silu(self.norm(self.middle(features))))


class PyramidDecoder(Decoder):
    """Decoder; arguments are in the order in which modules are built and registered.

    Args:
        config: network settings, which relate sizes of latents and images.
        first: layer from latents to features.
        middle: blocks at the lowest resolution.
        levels: one per resolution, the lowest first.
        upsamples: layers between levels.
        norm: normalization before the last swish.
        last: layer from features to images.
        adaptive_norms: normalizations by the latents before each level, registered before the levels; none by
            default.
    """

    def __init__(
        self,
        config: Network,
        first: nn.Conv2d,
        middle: nn.Module,
        levels: Iterable[nn.Module],
        upsamples: Iterable[nn.Module],
        norm: nn.Module,
        last: nn.Conv2d,
        adaptive_norms: Iterable[nn.Module] = (),
    ):
        super().__init__()
        self.config, self.dim = config, first.in_channels
        self.first, self.middle = first, middle
        self.adaptive_norms = nn.ModuleList(adaptive_norms)
        self.levels = nn.ModuleList(levels)
        self.upsamples = nn.ModuleList(upsamples)
        self.norm, self.last = norm, last

    def forward(self, latents: Latents, image_size: tuple[int, int]) -> Images:
        check_fit(self.config, latents, image_size)
        features = self.middle(self.first(latents))
        norms: list[Callable[[Tensor, Tensor], Tensor]] = [*self.adaptive_norms]
        norms = norms or [identity] * len(self.levels)
        for norm, level, upsample in zip(norms, self.levels, [*self.upsamples, nn.Identity()], strict=True):
            features = upsample(level(norm(features, latents)))
        return self.last(F.silu(self.norm(features)))

    @property
    def last_layer(self) -> nn.Parameter:
        return self.last.get_parameter("weight")


def identity(
    features: Float[Tensor, "b c h w"], latents: Float[Tensor, "b d y x"]
) -> Float[Tensor, "b c h w"]:
    """Return the features unchanged."""
    return features
