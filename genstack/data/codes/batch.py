"""A batch of codes that were made beforehand."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from genstack.inputs import ConditionInputs


@dataclass
class CodeBatch:
    """What a prior's training reads where images have been encoded before.

    Args:
        stored: the codes.
        facts: what is known of their images.
    """

    stored: Int[Tensor, "b n"]
    facts: ConditionInputs

    def __len__(self) -> int:
        return len(self.stored)

    def codes(self, encode: Callable[[Tensor], Tensor]) -> Int[Tensor, "b n"]:
        """The codes; nothing is left to encode."""
        return self.stored

    def to(self, device: torch.device | str) -> "CodeBatch":
        return CodeBatch(self.stored.to(device), self.facts.to(device))

    def pin_memory(self) -> "CodeBatch":
        return replace(self, stored=self.stored.pin_memory())
