"""Levels of halving size, from images to latents and back, as VQGAN has them (arXiv:2012.09841, table 7)."""

from collections.abc import Callable, Iterable
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genstack.compressor.network import Decoder, Encoder, Network, check_fit, tiles
from genstack.errors import UserError


class Pyramid(Network):
    """A plan of levels, each with half the sides of the one before; a plan lists the parts of both halves."""

    width: int
    multipliers: tuple[int | float, ...]
    blocks: int

    def check(self, *counts: str) -> None:
        """Refuse a plan with less than 1 of any of `counts`, or of the channels of a level."""
        found = {name: getattr(self, name) for name in counts}
        for name, count in {**found, "multipliers": min(self.widths, default=0)}.items():
            if count < 1:
                raise UserError(f"{name} {getattr(self, name)} is too small; use 1 or more")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, full resolution first."""
        return tuple(round(self.width * multiplier) for multiplier in self.multipliers)

    @property
    def down(self) -> list[tuple[int, int]]:
        """Channels before and after each level of the encoder."""
        return list(pairwise((self.width, *self.widths)))

    @property
    def up(self) -> list[tuple[int, int]]:
        """Channels before and after each level of the decoder, smallest size first."""
        return list(pairwise((self.widths[-1], *self.widths[::-1])))

    @property
    def stride(self) -> int:
        """Pixels per latent along each side."""
        return 2 ** (len(self.multipliers) - 1)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return tiles(height, width, self.stride, "stride", "fewer `multipliers`")


class PyramidEncoder(Encoder):
    """Images to latents, fine to coarse; parts come in the order in which they are made and stored.

    Args:
        first: images to features.
        levels: one for each size, full resolution first.
        downsamples: between any two levels.
        middle: what follows at the smallest size.
        norm: before the last swish.
        last: features to latents.
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

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d h w"]:
        features = self.first(images)
        for level, downsample in zip(self.levels, [*self.downsamples, nn.Identity()], strict=True):
            features = downsample(level(features))
        return self.last(F.silu(self.norm(self.middle(features))))


class PyramidDecoder(Decoder):
    """Latents to images, coarse to fine; parts come in the order in which they are made and stored.

    Args:
        plan: which sizes of latents and images belong together.
        first: latents to features.
        middle: what follows at the smallest size.
        levels: one for each size, the smallest first.
        upsamples: between any two levels.
        norm: before the last swish.
        last: features to images.
        looks: what looks at the latents again before each level; stored before the levels. None by default.
    """

    def __init__(
        self,
        plan: Network,
        first: nn.Conv2d,
        middle: nn.Module,
        levels: Iterable[nn.Module],
        upsamples: Iterable[nn.Module],
        norm: nn.Module,
        last: nn.Conv2d,
        looks: Iterable[nn.Module] = (),
    ):
        super().__init__()
        self.plan, self.dim = plan, first.in_channels
        self.first, self.middle = first, middle
        self.looks = nn.ModuleList(looks)
        self.levels = nn.ModuleList(levels)
        self.upsamples = nn.ModuleList(upsamples)
        self.norm, self.last = norm, last

    def forward(
        self, latents: Float[Tensor, "b d h w"], image_size: tuple[int, int]
    ) -> Float[Tensor, "b c H W"]:
        check_fit(self.plan, latents, image_size)
        features = self.middle(self.first(latents))
        looks: list[Callable[[Tensor, Tensor], Tensor]] = [*self.looks] or [no_look] * len(self.levels)
        for look, level, upsample in zip(looks, self.levels, [*self.upsamples, nn.Identity()], strict=True):
            features = upsample(level(look(features, latents)))
        return self.last(F.silu(self.norm(features)))

    @property
    def last_layer(self) -> nn.Parameter:
        return self.last.get_parameter("weight")


def no_look(
    features: Float[Tensor, "b c h w"], latents: Float[Tensor, "b d y x"]
) -> Float[Tensor, "b c h w"]:
    """The features, whatever the latents."""
    return features
