"""Where a token lies: learned embeddings, and rotary angles (Su et al. 2021, arXiv:2104.09864)."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.layout import CodeLayout


def coordinates(layout: CodeLayout) -> Float[Tensor, "n two=2"]:
    """Row and column of every code, counted in steps of the largest grid.

    All grids cover the same image, so the coordinates of a code are those of the centre of its cell: whole
    numbers 0, 1, 2, ... in the largest grid; 0.5, 2.5, 4.5, ... in a grid half as large.
    """
    places = layout.places()
    sizes = torch.tensor(layout.grids, dtype=torch.float32)
    corners = torch.stack([places.row, places.column], dim=1)
    return (corners + 0.5) * (sizes.amax(0) / sizes)[places.grid] - 0.5


@dataclass(frozen=True, eq=False)
class Rotation:
    """Cosines and sines of the angles by which the channels of each token are turned."""

    cosine: Float[Tensor, "*b one=1 n d"]
    sine: Float[Tensor, "*b one=1 n d"]

    def __call__(self, heads: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
        """Channel i and channel i + d / 2 turn together, as the two axes of a plane."""
        return torch.addcmul(heads * self.cosine, heads.roll(heads.shape[-1] // 2, dims=-1), self.sine)


class Rotary(nn.Module):
    """Two-dimensional rotary positions (as in LlamaGen, arXiv:2406.06525).

    Half of the planes turn with the row, half with the column, at frequencies from 1 down towards 1/10000.
    Positions are indices of codes in the flat sequence; index n is no place, where nothing turns.

    Args:
        layout: where the codes lie.
        head_width: channels of one head.
        zero: where there is no place, everything becomes zero, instead.
    """

    def __init__(self, layout: CodeLayout, head_width: int, zero: bool = False):
        super().__init__()
        planes = head_width // 4
        frequencies = 10_000 ** -(torch.arange(planes) / planes)
        angles = rearrange(coordinates(layout)[:, :, None] * frequencies, "n side plane -> n (side plane)")
        angles = torch.cat([angles, torch.zeros(1, 2 * planes)])
        cosine = angles.cos()
        if zero:
            cosine[-1] = 0
        self.register_buffer("cosine", torch.cat([cosine, cosine], dim=1), persistent=False)
        self.register_buffer("sine", torch.cat([-angles.sin(), angles.sin()], dim=1), persistent=False)

    def forward(self, positions: Int[Tensor, "*b n"]) -> Rotation:
        cosine, sine = (
            rearrange(self.get_buffer(name)[positions], "... n d -> ... 1 n d") for name in ("cosine", "sine")
        )
        return Rotation(cosine, sine)


class IndexEmbedding(nn.Module):
    """One learned vector per value of an index that each position has, and one for no place (position n)."""

    def __init__(self, index: Int[Tensor, " n"], values: int, width: int):
        super().__init__()
        self.table = nn.Embedding(values + 1, width)
        nn.init.normal_(self.table.weight, std=0.02)
        self.register_buffer("index", torch.cat([index, torch.tensor([values])]), persistent=False)

    def forward(self, positions: Int[Tensor, "*b n"]) -> Float[Tensor, "*b n width"]:
        return self.table(self.get_buffer("index")[positions])


class PlaceEmbedding(nn.Module):
    """Adds learned vectors for the grid and the depth index of each position, where the layout has several.

    With `absolute`, also one for each index in the flat sequence.
    """

    def __init__(self, layout: CodeLayout, width: int, absolute: bool = False):
        super().__init__()
        places, order = layout.places(), torch.arange(layout.length)
        kinds = [(places.grid, len(layout.grids)), (places.depth, layout.depth)]
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
