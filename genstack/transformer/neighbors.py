"""Codes above the one that is predicted, read at once: a masked convolution (PixelCNN, arXiv:1601.06759)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from genstack.layout import CodeLayout

COLUMNS = (-1, 0, 1)  # in the row above, relative to the column of the predicted code


class NeighborEmbedding(nn.Module):
    """Adds the three codes above the predicted one to the token that predicts it.

    Attention needs hundreds of steps to learn to read them.

    Args:
        layout: where the codes lie.
        width: channels of a token.
        regions: rows of regions that are sampled in parallel; the last codes of one are not known to the
            first of the next.
    """

    def __init__(self, layout: CodeLayout, width: int, regions: int = 1):
        super().__init__()
        grids, positions, order = layout.grids, layout.positions(), torch.arange(layout.length)
        widths = torch.tensor([columns for _, columns in grids])[positions.grid]
        heights = torch.tensor([rows // regions for rows, _ in grids])[positions.grid]
        index: list[Tensor] = []
        self.layers = nn.ModuleList()
        for shift in COLUMNS:
            if not any(rows > regions and columns > abs(shift) for rows, columns in grids):
                continue  # no code has such a neighbor
            column = positions.column + shift
            inside = (positions.row % heights > 0) & (column >= 0) & (column < widths)
            index.append(torch.where(inside, order + (shift - widths) * layout.depth + 1, 0))
            layer = nn.Linear(width, width, bias=False)
            nn.init.normal_(layer.weight, std=0.02)
            self.layers.append(layer)
        rows = torch.stack(index) if index else order.new_zeros(0, layout.length)
        # The last column is for tokens that predict no code; they have no neighbors.
        self.register_buffer("index", pad(rows, (0, 1)), persistent=False)

    def forward(
        self,
        tokens: Float[Tensor, "b n width"],
        targets: Int[Tensor, " n"],
        codes: Float[Tensor, "b m width"],
    ) -> Float[Tensor, "b n width"]:
        """Add neighbors to tokens.

        Args:
            tokens: embedded codes and conditions.
            targets: the index of the code that each token predicts; `layout.length` for none.
            codes: a vector of zeros, then the vectors of the codes so far.
        """
        neighbors = codes[:, self.get_buffer("index")[:, targets]].unbind(1)
        for layer, vectors in zip(self.layers, neighbors, strict=True):
            tokens = tokens + layer(vectors)
        return tokens
