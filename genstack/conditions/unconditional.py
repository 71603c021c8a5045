"""No condition: one learned start token."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from genstack.conditions.condition import Condition
from genstack.conditions.embedding import ConditionEmbedding, TableEmbedding
from genstack.conditions.modality import Modality
from genstack.inputs import ConditionInputs, DataInfo, Prompts


@dataclass(frozen=True)
class Unconditional(Condition):
    """No condition: one learned start token."""

    length = 1
    dropout = 0.0

    @property
    def modality(self) -> Modality:
        return NoModality()

    def fit(self, data: DataInfo) -> "Unconditional":
        return self

    def encode(self, inputs: ConditionInputs) -> Int[Tensor, " b"]:
        return torch.zeros_like(inputs.labels)

    def null(self, values: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        return values

    def embedding(self, width: int) -> ConditionEmbedding:
        return TableEmbedding(1, width)


class NoModality(Modality):
    """No input, and no prompts."""

    def read_prompts(self, prompts: Prompts, count: int) -> ConditionInputs:
        return ConditionInputs.nothing(count)

    def preview(self, held_out: ConditionInputs) -> ConditionInputs:
        return ConditionInputs.nothing(len(held_out))

    def describe(self, inputs: ConditionInputs) -> list[dict[str, str]]:
        return [{} for _ in range(len(inputs))]
