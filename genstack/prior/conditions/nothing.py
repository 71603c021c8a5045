"""No condition: one learned start token."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from genstack.facts import Facts, Offer, Wishes
from genstack.prior.condition import Condition, only
from genstack.prior.conditions.table import TableEmbedding


@dataclass(frozen=True)
class Unconditional(Condition):
    """No condition: one learned start token."""

    length = 1
    dropout = 0.0

    def of(self, offer: Offer) -> "Unconditional":
        return self

    def values(self, facts: Facts) -> Int[Tensor, " b"]:
        return torch.zeros_like(facts.labels)

    def null(self, values: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        return values

    def embedding(self, width: int) -> nn.Module:
        return TableEmbedding(1, width)

    def choose(self, wishes: Wishes, count: int) -> Facts:
        only(wishes, "", "without a condition")
        return Facts.nothing(count)

    def shown(self, held_out: Facts) -> Facts:
        return Facts.nothing(len(held_out))

    def tell(self, facts: Facts) -> list[dict[str, str]]:
        return [{} for _ in range(len(facts))]
