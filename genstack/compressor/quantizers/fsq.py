"""Finite scalar quantization (Mentzer et al. 2023, arXiv:2309.15505, section 3.1 and appendix A.1)."""

from math import prod

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from genstack.compressor.bottleneck import Quantized, Quantizer
from genstack.compressor.quantizers.estimator import straight_through
from genstack.errors import UserError
from genstack.layout import CodeLayout

MARGIN = 1e-3  # share by which bounds exceed the outermost levels, which tanh would reach at infinity only


class FSQ(Quantizer):
    """Round each channel to one of a few levels; all combinations of levels form the codebook.

    It has no table and no loss term, and cannot collapse. The paper recommends
    `[8, 6, 5]` for 240 codes, `[8, 5, 5, 5]` for 1,000, `[7, 5, 5, 5, 5]` for 4,375, `[8, 8, 8, 5, 5, 5]` for
    64,000; at least 5 levels per channel work best.

    Args:
        levels: number of levels per channel; their product is the codebook size.
    """

    counts: Int[Tensor, " {self.dim}"]
    middle: Int[Tensor, " {self.dim}"]  # index of the middle level; it scales latents to [-1, 1]
    place_values: Int[Tensor, " {self.dim}"]  # contribution of one level to a code

    def __init__(self, levels: tuple[int, ...] = (8, 5, 5, 5)):
        super().__init__()
        if not levels or min(levels) < 3:
            raise UserError(f"levels {levels} are too few; use 3 or more per channel, or LFQ for signs")
        if prod(levels) >= 2**31:
            raise UserError(f"levels {levels} make {prod(levels)} codes; use fewer channels or levels")
        self.levels = tuple(levels)
        self.dim, self.codebook_size = len(levels), prod(levels)
        counts = torch.tensor(self.levels)
        place_values = torch.tensor([prod(levels[:channel]) for channel in range(self.dim)])
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("middle", counts // 2, persistent=False)
        self.register_buffer("place_values", place_values, persistent=False)

    def forward(self, latents: Float[Tensor, "b {self.dim} h w"]) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            soft = self.bound(rearrange(latents.float(), "b d h w -> b h w d"))
            hard = soft.round()
            codes = rearrange(self.number(hard), "b h w -> b (h w)")
            vectors = straight_through(hard, soft) / self.middle
        return Quantized(rearrange(vectors, "b h w d -> b d h w"), codes=codes)

    def lookup(self, codes: Int[Tensor, "b n"], layout: CodeLayout) -> Float[Tensor, "b {self.dim} h w"]:
        (grid,) = layout.split(codes)
        digits = grid // self.place_values % self.counts
        return rearrange((digits - self.middle) / self.middle, "b h w d -> b d h w")

    def bound(self, latents: Float[Tensor, "*shape {self.dim}"]) -> Float[Tensor, "*shape {self.dim}"]:
        """Bound latents to the range of the levels, which are integers (appendix A.1).

        An even number of levels goes from -L/2 to L/2 - 1, so bounds and latents are shifted by a half; 0
        stays at 0.
        """
        reach = (self.counts - 1) / 2 * (1 + MARGIN)
        offset = torch.where(self.counts % 2 == 0, 0.5, 0.0)
        return (latents + torch.atanh(offset / reach)).tanh() * reach - offset

    def number(self, rounded: Float[Tensor, "*shape {self.dim}"]) -> Int[Tensor, "*shape"]:
        """Convert levels to codes; the first channel is the lowest digit."""
        return ((rounded + self.middle).long() * self.place_values).sum(-1)
