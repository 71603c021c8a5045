"""Modules that embed condition values as tokens."""

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn


class ConditionEmbedding(nn.Module):
    """Base of modules from condition values to tokens, `b length width`."""

    def share_codes(self, codes: nn.Embedding) -> None:
        """Use a prior's embedding of codes, if the condition is configured to share it."""


class TableEmbedding(ConditionEmbedding):
    """One learned token per label: `b -> b 1 width`."""

    def __init__(self, labels: int, width: int):
        super().__init__()
        self.table = nn.Embedding(labels, width)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, values: Int[Tensor, " b"]) -> Float[Tensor, "b 1 width"]:
        return rearrange(self.table(values), "b width -> b 1 width")
