"""Corners of a cube and their codes (arXiv:2310.05737, arXiv:2406.07548)."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genstack.compressor.bottleneck import Quantizer
from genstack.errors import UserError
from genstack.layout import CodeLayout


@dataclass(frozen=True)
class Corners:
    """Corners of a cube around 0, numbered by their signs; the first sign is the lowest bit.

    Args:
        bits: bits of one position, one per channel.
        depth: number of symbols per position, of equally many bits.
        reach: absolute value of the corners in each channel.
    """

    bits: int
    depth: int = 1
    reach: float = 1.0

    def __post_init__(self) -> None:
        if self.depth < 1 or self.bits % self.depth:
            raise UserError(
                f"{self.bits} bits cannot be split into depth {self.depth}; use a depth that divides them"
            )
        if self.bits // self.depth > 62:
            raise UserError(
                f"{self.bits} bits in depth {self.depth} make {2 ** (self.bits // self.depth)} values of a "
                f"code; use a greater depth"
            )

    @property
    def size(self) -> int:
        """Number of values of one symbol."""
        return 2 ** (self.bits // self.depth)

    def nearest(
        self, latents: Float[Tensor, "b h w {self.bits}"]
    ) -> tuple[Float[Tensor, "b h w {self.bits}"], Int[Tensor, "b n"]]:
        """Return the nearest corner of each latent, and its symbols."""
        bits = latents > 0
        return self.at(bits), self.codes(bits)

    def lookup(self, grid: Int[Tensor, "b h w {self.depth}"]) -> Float[Tensor, "b {self.bits} h w"]:
        """Return the corner that the symbols of each position stand for."""
        return rearrange(self.at(self.bits_of(grid)), "b h w d -> b d h w")

    def at(self, bits: Bool[Tensor, "*shape {self.bits}"]) -> Float[Tensor, "*shape {self.bits}"]:
        """Return the corner with these bits as signs."""
        return (bits * 2.0 - 1) * self.reach

    def codes(self, bits: Bool[Tensor, "b h w {self.bits}"]) -> Int[Tensor, "b n"]:
        """Convert a grid of bits to a flat sequence of symbols."""
        parts = rearrange(bits.long(), "b h w (depth bit) -> b (h w depth) bit", depth=self.depth)
        return (parts << torch.arange(parts.shape[-1], device=bits.device)).sum(-1)

    def bits_of(self, grid: Int[Tensor, "b h w {self.depth}"]) -> Bool[Tensor, "b h w {self.bits}"]:
        """Convert symbols to bits, the inverse of `codes`."""
        places = torch.arange(self.bits // self.depth, device=grid.device)
        return rearrange(grid[..., None] >> places & 1, "b h w depth bit -> b h w (depth bit)").bool()

    def flip(
        self, grid: Int[Tensor, "b h w {self.depth}"], flipped: Bool[Tensor, "b h w {self.bits}"]
    ) -> Int[Tensor, "b h w {self.depth}"]:
        """Flip the marked bits of symbols."""
        return self.codes(self.bits_of(grid) ^ flipped).view_as(grid)


class BitQuantizer(Quantizer):
    """A quantizer whose codes are bits: signs of channels, as corners of a cube.

    Args:
        corners: the corners.
    """

    def __init__(self, corners: Corners):
        super().__init__()
        self.corners = corners
        self.bits, self.depth, self.dim, self.codebook_size = (
            corners.bits,
            corners.depth,
            corners.bits,
            corners.size,
        )

    def lookup(self, codes: Int[Tensor, "b n"], layout: CodeLayout) -> Float[Tensor, "b {self.dim} h w"]:
        (grid,) = layout.split(codes)
        return self.corners.lookup(grid)
