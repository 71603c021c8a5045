"""Vectors of codes, and a head that predicts codes by the same vectors (arXiv:1608.05859)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear

#: How many times smaller tied vectors are stored, and so how many times faster they learn.
SCALE = 8.0


class ScaledEmbedding(nn.Embedding):
    """Learned vectors, stored several times smaller than they are read.

    AdamW moves every weight by about its learning rate, so that smaller weights change faster. A layer of a
    transformer needs a low rate; vectors of codes, each of which is met rarely, learn best at a higher one.

    Args:
        codes: number of vectors.
        width: channels of each.
        scale: factor from what is stored to what is read.
    """

    def __init__(self, codes: int, width: int, scale: float = SCALE):
        super().__init__(codes, width)
        self.scale = scale
        nn.init.normal_(self.weight, std=0.02 / scale)

    def forward(self, input: Int[Tensor, "*b"]) -> Float[Tensor, "*b width"]:
        return super().forward(input) * self.scale


class TiedHead(nn.Module):
    """Logits of codes: products of features with the vectors of the codes.

    Args:
        table: vectors of all codes.
        rows: of the table, that are predicted; None for all.
        bias: add a learned number to each logit.
    """

    #: The vectors in the dtype of autocast; set while codes are sampled.
    cast: Tensor | None = None

    def __init__(self, table: ScaledEmbedding, rows: slice | None = None, bias: bool = False):
        super().__init__()
        self.table = (table,)  # in a tuple: it belongs to the prior, and is saved once
        self.rows = rows or slice(None)
        self.bias = nn.Parameter(torch.zeros(len(self.weight))) if bias else None

    @property
    def weight(self) -> Tensor:
        """The vectors of the codes that are predicted, as they are stored."""
        return self.table[0].weight[self.rows]

    def forward(self, features: Float[Tensor, "*b width"]) -> Float[Tensor, "*b K"]:
        weight = self.weight if self.cast is None else self.cast
        return linear(features * self.table[0].scale, weight, self.bias)


def code_embedding(codes: int, width: int, tied: bool) -> nn.Embedding:
    """A vector for each code.

    Args:
        codes: number of codes.
        width: channels of a vector.
        tied: codes are predicted by these vectors, too.
    """
    if tied:
        return ScaledEmbedding(codes, width)
    table = nn.Embedding(codes, width)
    nn.init.normal_(table.weight, std=0.02)
    return table


def code_head(table: nn.Embedding, rows: slice | None = None, bias: bool = False) -> nn.Module:
    """From features to logits of codes, tied to their vectors where these are made for it.

    Args:
        table: vectors of all codes.
        rows: of the table, that are predicted; None for all.
        bias: add a learned number to each logit.
    """
    if isinstance(table, ScaledEmbedding):
        return TiedHead(table, rows, bias)
    head = nn.Linear(table.embedding_dim, len(table.weight[rows or slice(None)]), bias=bias)
    nn.init.normal_(head.weight, std=0.02)
    if bias:
        nn.init.zeros_(head.bias)
    return head
