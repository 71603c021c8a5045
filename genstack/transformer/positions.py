"""Positions of tokens: learned embeddings, and rotary embeddings (Su et al. 2021, arXiv:2104.09864)."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.layout import Layout


def coordinates(layout: Layout) -> Float[Tensor, "n two=2"]:
    """Row and column of every code, in cells of the largest grid.

    All grids cover the same image. The coordinates of a code are the centre of its cell: 0, 1, 2, ... in the
    largest grid; 0.5, 2.5, 4.5, ... in a grid half as large.
    """
    positions = layout.positions()
    sizes = torch.tensor(layout.grids, dtype=torch.float32)
    corners = torch.stack([positions.row, positions.column], dim=1)
    return (corners + 0.5) * (sizes.amax(0) / sizes)[positions.grid] - 0.5


@dataclass(frozen=True, eq=False)
class Rotation:
    """Cosines and sines of the rotation angles of each token's channels."""

    cosine: Float[Tensor, "*b one=1 n d"]
    sine: Float[Tensor, "*b one=1 n d"]

    def __call__(self, heads: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
        """Rotate heads; channels i and i + d / 2 are the two axes of a plane."""
        return torch.addcmul(heads * self.cosine, heads.roll(heads.shape[-1] // 2, dims=-1), self.sine)


class Rotary(nn.Module):
    """Two-dimensional rotary embeddings (as in LlamaGen, arXiv:2406.06525).

    Half of the planes rotate with the row, half with the column, at frequencies from 1 down towards 1/10000.
    Positions are indices of codes in the flat sequence; index n means no position and no rotation.

    Args:
        layout: layout of the codes.
        head_width: channels of one head.
        zero: set queries and keys without a position to zero instead.
    """

    #: Cosines, then sines, of each position.
    table: Float[Tensor, "two=2 positions d"]

    def __init__(self, layout: Layout, head_width: int, zero: bool = False):
        super().__init__()
        planes = head_width // 4
        frequencies = 10_000 ** -(torch.arange(planes) / planes)
        angles = rearrange(coordinates(layout)[:, :, None] * frequencies, "n side plane -> n (side plane)")
        angles = torch.cat([angles, torch.zeros(1, 2 * planes)])
        cosine = angles.cos()
        if zero:
            cosine[-1] = 0
        table = [torch.cat([cosine, cosine], dim=1), torch.cat([-angles.sin(), angles.sin()], dim=1)]
        self.register_buffer("table", torch.stack(table), persistent=False)

    def forward(self, positions: Int[Tensor, "*b n"]) -> Rotation:
        return Rotation(*self.table[:, positions].unsqueeze(-3).unbind())


class IndexEmbedding(nn.Module):
    """A learned vector per value of an index over positions, and one for no position (index n)."""

    def __init__(self, index: Int[Tensor, " n"], values: int, width: int):
        super().__init__()
        self.table = nn.Embedding(values + 1, width)
        nn.init.normal_(self.table.weight, std=0.02)
        self.register_buffer("index", torch.cat([index, torch.tensor([values])]), persistent=False)

    def forward(self, positions: Int[Tensor, "*b n"]) -> Float[Tensor, "*b n width"]:
        return self.table(self.get_buffer("index")[positions])


class PositionEmbedding(nn.Module):
    """Add learned vectors for the grid and depth of each position, if the layout has several.

    With `absolute`, also one for each index in the flat sequence.
    """

    def __init__(self, layout: Layout, width: int, absolute: bool = False):
        super().__init__()
        positions, order = layout.positions(), torch.arange(layout.length)
        kinds = [(positions.grid, len(layout.grids)), (positions.depth, layout.depth)]
        kinds = [(index, values) for index, values in kinds if values > 1]
        if absolute:
            kinds.append((order, layout.length))
        self.parts = nn.ModuleList(IndexEmbedding(index, values, width) for index, values in kinds)

    def forward(
        self, tokens: Float[Tensor, "b n width"], positions: Int[Tensor, "*b n"]
    ) -> Float[Tensor, "b n width"]:
        for part in self.parts:
            tokens = tokens + part(positions)
        return tokens
