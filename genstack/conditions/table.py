"""A learned token for each of a few values."""

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn


class TableEmbedding(nn.Module):
    """One learned token per label: `b -> b 1 width`."""

    def __init__(self, labels: int, width: int):
        super().__init__()
        self.table = nn.Embedding(labels, width)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, values: Int[Tensor, " b"]) -> Float[Tensor, "b 1 width"]:
        return rearrange(self.table(values), "b width -> b 1 width")
