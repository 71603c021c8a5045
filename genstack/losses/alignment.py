"""Alignment of latents with features of a frozen network (VA-VAE, Yao et al. 2025, arXiv:2501.01423)."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, interpolate, normalize

from genstack.errors import UserError
from genstack.losses.adaptive import AdaptiveWeight
from genstack.losses.efficientnet import EfficientNetLite0
from genstack.losses.features import Features, Frozen, check_channels
from genstack.losses.weight import check_weight


class Alignment(nn.Module):
    """Pull latents towards features of a frozen network, so that priors find them easier to learn.

    A linear projection, trained with the compressor, maps latents to features, which are resized to the grid
    of latents. Margins leave out pairs that agree well enough.

    Args:
        channels: channels of the latents; set from the compressor.
        features: the frozen network.
        weight: weight in the training loss.
        map: number of the feature map, fine to coarse; -1 for the coarsest.
        cosine: weight of the distance of latents and features at each position.
        cosine_margin: cosine distance that is left out.
        pairs: weight of the difference of similarities between two positions.
        pairs_margin: difference that is left out.
        adaptive: AdaptiveWeight, which scales `weight` by a ratio of gradients as in VA-VAE; null for none.
    """

    def __init__(
        self,
        channels: int,
        features: Features = EfficientNetLite0(size=128),
        weight: float = 0.1,
        map: int = -1,
        cosine: float = 1.0,
        cosine_margin: float = 0.5,
        pairs: float = 1.0,
        pairs_margin: float = 0.25,
        adaptive: AdaptiveWeight | None = None,
    ):
        super().__init__()
        for each in (weight, cosine, cosine_margin, pairs, pairs_margin):
            check_weight(each)
        widths = features.widths
        if not -len(widths) <= map < len(widths):
            raise UserError(
                f"map {map} not found; the network has {len(widths)} maps, 0 to {len(widths) - 1}"
            )
        self.channels, self.features, self.weight, self.map = channels, features, weight, map
        self.adaptive = adaptive
        self.cosine, self.cosine_margin, self.pairs, self.pairs_margin = (
            cosine,
            cosine_margin,
            pairs,
            pairs_margin,
        )
        self.frozen = Frozen(features)
        self.projection = nn.Conv2d(channels, widths[map], 1, bias=False)

    def check(self, channels: int, size: tuple[int, int], grid: tuple[int, int]) -> None:
        """Raise a UserError for images or a grid of latents that do not fit.

        Args:
            channels: channels of the images.
            size: height and width of the images.
            grid: height and width of the latents.
        """
        check_channels(channels)
        self.features.grids(*size)
        if round(grid[0] * size[1] / size[0]) != grid[1]:
            raise UserError(
                f"Alignment needs latents at places of the image, got a grid of {grid[0]} x {grid[1]} for "
                f"images of {size[0]} x {size[1]}; use `alignment: null`"
            )

    def forward(
        self, latents: Float[Tensor, "b {self.channels} h w"], images: Float[Tensor, "b c H W"]
    ) -> Float[Tensor, ""]:
        """Mean distance of latents from the features of their images; callers multiply it by `weight`."""
        with torch.no_grad():
            target = self.frozen(images).maps[self.map]
        with torch.autocast(latents.device.type, enabled=False):
            target = interpolate(target.float(), latents.shape[-2:], mode="bilinear", antialias=True)
            projected = self.projection(latents.float())
            return self.cosine * marginal_cosine(projected, target, self.cosine_margin) + (
                self.pairs * marginal_pairs(projected, target, self.pairs_margin)
            )


def marginal_cosine(
    latents: Float[Tensor, "b d h w"], features: Float[Tensor, "b d h w"], margin: float
) -> Float[Tensor, ""]:
    """Mean cosine distance at each position beyond a margin (marginal cosine similarity loss)."""
    return (1 - margin - cosine_similarity(latents, features)).relu().mean()


def marginal_pairs(
    latents: Float[Tensor, "b d h w"], features: Float[Tensor, "b k h w"], margin: float
) -> Float[Tensor, ""]:
    """Mean difference of cosine similarities of pairs of positions beyond a margin (distance matrix loss)."""
    return ((pair_similarity(latents) - pair_similarity(features)).abs() - margin).relu().mean()


def pair_similarity(maps: Float[Tensor, "b d h w"]) -> Float[Tensor, "b n n"]:
    """Cosine similarity of each two positions of an image."""
    unit = normalize(rearrange(maps, "b d h w -> b (h w) d"), dim=-1)
    return unit @ unit.transpose(1, 2)
