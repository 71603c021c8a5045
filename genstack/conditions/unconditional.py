"""No condition: one learned start token."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from genstack.conditions.condition import Condition, only
from genstack.conditions.embedding import ConditionEmbedding, TableEmbedding
from genstack.inputs import ConditionInputs, DataInfo, Prompts


@dataclass(frozen=True)
class Unconditional(Condition):
    """No condition: one learned start token."""

    length = 1
    dropout = 0.0

    def of(self, offer: DataInfo) -> "Unconditional":
        return self

    def values(self, facts: ConditionInputs) -> Int[Tensor, " b"]:
        return torch.zeros_like(facts.labels)

    def null(self, values: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        return values

    def embedding(self, width: int) -> ConditionEmbedding:
        return TableEmbedding(1, width)

    def choose(self, wishes: Prompts, count: int) -> ConditionInputs:
        only(wishes, "", "without a condition")
        return ConditionInputs.nothing(count)

    def shown(self, held_out: ConditionInputs) -> ConditionInputs:
        return ConditionInputs.nothing(len(held_out))

    def tell(self, facts: ConditionInputs) -> list[dict[str, str]]:
        return [{} for _ in range(len(facts))]
