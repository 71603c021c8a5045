"""Layout of the codes of one image: all that a prior knows of its compressor."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from genstack.errors import UserError


@dataclass(frozen=True)
class Positions:
    """Position of each of the n codes, one int64 tensor of length n per coordinate."""

    grid: Int[Tensor, " n"]
    row: Int[Tensor, " n"]
    column: Int[Tensor, " n"]
    depth: Int[Tensor, " n"]


@dataclass(frozen=True)
class CodeLayout:
    """Grids of codes. The flat order is grid by grid (coarse to fine), row by row, depth innermost.

    Args:
        image_size: height and width of the encoded image.
        codebook_size: number of values of one symbol, the same for all grids and depths.
        grids: height and width of each grid of codes, coarse to fine. One grid for VQ, `((1, 32),)` for 32
            codes of a 1-D compressor, two or more for hierarchical and multi-scale codes.
        depth: symbols per position (residual, grouped and factorized codes have several).
    """

    image_size: tuple[int, int]
    codebook_size: int
    grids: tuple[tuple[int, int], ...]
    depth: int = 1

    def __post_init__(self) -> None:
        sides = (
            *self.image_size,
            self.codebook_size,
            self.depth,
            *(side for grid in self.grids for side in grid),
        )
        if not self.grids or min(sides) < 1:
            raise UserError(f"sizes of a code layout must be at least 1, with at least one grid; got {self}")

    @property
    def length(self) -> int:
        """Number of codes of one image."""
        return self.depth * sum(prod(grid) for grid in self.grids)

    def split(self, codes: Int[Tensor, "b n"]) -> list[Int[Tensor, "b _ _ depth"]]:
        """Split a flat sequence into one tensor per grid."""
        if codes.shape[1] != self.length:
            raise UserError(f"{codes.shape[1]} codes do not fit a layout of {self.length}: {self}")
        parts = codes.split([prod(grid) * self.depth for grid in self.grids], dim=1)
        return [
            rearrange(part, "b (h w depth) -> b h w depth", h=height, depth=self.depth)
            for part, (height, _) in zip(parts, self.grids, strict=True)
        ]

    def join(self, grids: Sequence[Int[Tensor, "b _ _ depth"]]) -> Int[Tensor, "b n"]:
        """Join grids into the flat sequence; the inverse of `split`."""
        shapes = tuple(tuple(grid.shape[1:]) for grid in grids)
        if shapes != tuple((*grid, self.depth) for grid in self.grids):
            raise UserError(f"grids of shapes {shapes} do not fit {self}")
        return torch.cat([rearrange(grid, "b h w depth -> b (h w depth)") for grid in grids], dim=1)

    def positions(self) -> Positions:
        """Grid, row, column and depth of every code, in the order of the flat sequence."""
        grids = [
            torch.stack(torch.meshgrid(*map(torch.arange, (height, width, self.depth)), indexing="ij"))
            for height, width in self.grids
        ]
        flat = [rearrange(grid, "coordinate h w depth -> coordinate (h w depth)") for grid in grids]
        row, column, depth = torch.cat(flat, dim=1)
        grid = [torch.full((prod(grid) * self.depth,), number) for number, grid in enumerate(self.grids)]
        return Positions(torch.cat(grid), row, column, depth)

    def joint(self, codes: Int[Tensor, "b n"]) -> Int[Tensor, "b positions"]:
        """Combine the `depth` symbols of each position into one number, as usage and perplexity count them.

        Raises:
            UserError: codebook_size ** depth does not fit 63 bits.
        """
        if self.codebook_size**self.depth >= 2**63:
            raise UserError(f"{self.codebook_size} ** {self.depth} joint codes do not fit an int64")
        place_value = self.codebook_size ** torch.arange(self.depth, device=codes.device)
        return (
            rearrange(codes, "b (position depth) -> b position depth", depth=self.depth) * place_value
        ).sum(-1)
