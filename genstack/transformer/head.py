"""Vectors of codes, and a head that predicts codes by the same vectors (arXiv:1608.05859)."""

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, one_hot

from genstack.errors import UserError

#: How many times smaller tied vectors are stored, and so how many times faster they learn.
SCALE = 8.0

#: Most vectors of a table.
LARGEST_TABLE = 2**24


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


class BitEmbedding(ScaledEmbedding):
    """Vectors of codes as a linear map of their bits, a vector for each bit (MaskBit, arXiv:2409.16211).

    A bit of 1 adds its vector, a bit of 0 subtracts it. Memory grows with the bits, not with the codes.

    Args:
        bits: bits of a code.
        width: channels of a vector.
        tables: number of independent maps; code c of map t has the index t * 2^bits + c.
        scale: factor from what is stored to what is read.
    """

    def __init__(self, bits: int, width: int, tables: int = 1, scale: float = SCALE):
        super().__init__(tables * bits, width, scale)
        self.bits, self.tables, self.num_embeddings = bits, tables, tables << bits
        nn.init.normal_(self.weight, std=0.02 / scale / bits**0.5)

    def forward(self, input: Int[Tensor, "*b"]) -> Float[Tensor, "*b width"]:
        signs = to_bits(input, self.bits) * 2.0 - 1
        if self.tables > 1:
            chosen = one_hot(input >> self.bits, self.tables)
            signs = (chosen[..., None] * signs[..., None, :]).flatten(-2)
        return linear(signs, self.weight.T) * self.scale


def to_bits(codes: Int[Tensor, "*b"], bits: int) -> Int[Tensor, "*b {bits}"]:
    """Bits of codes, the lowest first."""
    return codes[..., None] >> torch.arange(bits, device=codes.device) & 1


def from_bits(bits: Int[Tensor, "*b bits"]) -> Int[Tensor, "*b"]:
    """The inverse of `to_bits`."""
    return (bits << torch.arange(bits.shape[-1], device=bits.device)).sum(-1)


class TiedHead(nn.Module):
    """Logits of codes, or of their bits: products of features with the vectors of these.

    Args:
        table: vectors of all codes, or of all bits.
        rows: of the table, that are predicted.
        bias: add a learned number to each logit.
    """

    #: The vectors in the dtype of autocast; set while codes are sampled.
    cast: Tensor | None = None
    #: Multiplies features by the vectors; set while codes are sampled.
    product: Callable[[Tensor], Tensor] | None = None

    def __init__(self, table: ScaledEmbedding, rows: slice, bias: bool = False):
        super().__init__()
        self.table = (table,)  # in a tuple: it belongs to the prior, and is saved once
        self.rows = rows
        self.bias = nn.Parameter(torch.zeros(len(self.weight))) if bias else None

    @property
    def weight(self) -> Tensor:
        """The vectors of the codes that are predicted, as they are stored."""
        return self.table[0].weight[self.rows]

    @property
    def vectors(self) -> Tensor:
        """The vectors in the dtype in which features are multiplied by them."""
        return self.weight if self.cast is None else self.cast

    def forward(self, features: Float[Tensor, "*b width"]) -> Float[Tensor, "*b K"]:
        features = features * self.table[0].scale
        if self.product is not None:
            return self.product(features)
        return linear(features, self.vectors, self.bias)


def check_table(codes: int) -> None:
    """Check that a table of vectors, or of logits, of all codes fits into memory."""
    if codes > LARGEST_TABLE:
        raise UserError(
            f"a table for {codes} codes is too large, the limit is {LARGEST_TABLE}; use a prior with symbols "
            f"Bits (--config bits), or a quantizer with a greater depth"
        )


def code_embedding(codes: int, width: int, tied: bool) -> nn.Embedding:
    """A vector for each code.

    Args:
        codes: number of codes.
        width: channels of a vector.
        tied: codes are predicted by these vectors, too.
    """
    check_table(codes)
    if tied:
        return ScaledEmbedding(codes, width)
    table = nn.Embedding(codes, width)
    nn.init.normal_(table.weight, std=0.02)
    return table


def code_head(embedding: nn.Embedding, table: int = 0, tables: int = 1, bias: bool = False) -> nn.Module:
    """From features to logits of codes or bits, tied to their vectors where these are made for it.

    Args:
        embedding: vectors of all codes, or of all bits.
        table: number of the table that is predicted, of equal parts of the vectors.
        tables: number of tables.
        bias: add a learned number to each logit.
    """
    size = len(embedding.weight) // tables
    if isinstance(embedding, ScaledEmbedding):
        return TiedHead(embedding, slice(table * size, (table + 1) * size), bias)
    return linear_head(embedding.embedding_dim, size, bias)


def linear_head(width: int, outputs: int, bias: bool = False) -> nn.Linear:
    """A head with weights of its own."""
    check_table(outputs)
    head = nn.Linear(width, outputs, bias=bias)
    nn.init.normal_(head.weight, std=0.02)
    if bias:
        nn.init.zeros_(head.bias)
    return head


class JointHead(nn.Module):
    """Predict all symbols of a position from one token.

    Args:
        heads: from features to the outputs of each symbol; an identity becomes a linear layer, since its
            symbols would be alike.
        width: channels of the features.
    """

    def __init__(self, heads: Sequence[nn.Module], width: int):
        super().__init__()
        self.heads = nn.ModuleList(
            linear_head(width, width) if isinstance(head, nn.Identity) else head for head in heads
        )

    def forward(self, features: Float[Tensor, "b p width"]) -> Float[Tensor, "b n outputs"]:
        outputs = torch.stack([head(features) for head in self.heads], dim=2)
        return rearrange(outputs, "b p depth outputs -> b (p depth) outputs")
