"""Class labels, with a null class for guidance (Ho and Salimans 2022, arXiv:2207.12598)."""

from dataclasses import dataclass, replace
from difflib import get_close_matches

import torch
from jaxtyping import Int
from torch import Tensor

from genstack.conditions.condition import Condition, check_dropout
from genstack.conditions.embedding import ConditionEmbedding, TableEmbedding
from genstack.conditions.modality import Modality
from genstack.errors import UserError
from genstack.inputs import ConditionInputs, DataInfo, Prompts


@dataclass(frozen=True)
class ClassLabels(Condition):
    """Class labels as one token, with a null class at index len(names).

    Args:
        names: class names in the order of their labels; set from the data.
        dropout: share of training samples whose label becomes the null class; 0 makes guidance impossible.
        untrained: labels without a training image, which are sampled only on request; set from the data.
    """

    names: tuple[str, ...] = ()
    dropout: float = 0.1
    untrained: tuple[int, ...] = ()

    length = 1

    def __post_init__(self) -> None:
        check_dropout(self.dropout)

    @property
    def modality(self) -> Modality:
        return Classes(self.names, self.untrained)

    def fit(self, data: DataInfo) -> "ClassLabels":
        if not data.classes:
            raise UserError(
                "the data has no class labels; give it labels, or use the condition Unconditional"
            )
        if self.names not in ((), data.classes):
            raise UserError(
                f"the condition's {len(self.names)} names differ from the {len(data.classes)} classes of the "
                f"data; leave `names` out"
            )
        return replace(self, names=data.classes, untrained=data.untrained)

    def encode(self, inputs: ConditionInputs) -> Int[Tensor, " b"]:
        return inputs.labels

    def null(self, values: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        return torch.full_like(values, len(self.names))

    def embedding(self, width: int) -> ConditionEmbedding:
        return TableEmbedding(len(self.names) + 1, width)


class Classes(Modality):
    """Class labels, prompted by name or by `#index`; without prompts, trained classes are cycled."""

    kind = "classes"

    def __init__(self, names: tuple[str, ...], untrained: tuple[int, ...]):
        self.names, self.untrained = names, untrained

    def read_prompts(self, prompts: Prompts, count: int) -> ConditionInputs:
        labels = torch.tensor([self.label(name) for name in prompts.classes] or self.trained_labels)
        return ConditionInputs(labels[torch.arange(count) % len(labels)])

    def preview(self, held_out: ConditionInputs) -> ConditionInputs:
        return self.select(Prompts(), len(held_out))

    def describe(self, inputs: ConditionInputs) -> list[dict[str, str]]:
        return [{"class": self.names[label]} for label in inputs.labels.tolist()]

    @property
    def trained_labels(self) -> list[int]:
        """Labels with a training image, or all if none has one; they are cycled."""
        return sorted({*range(len(self.names))} - {*self.untrained}) or [*range(len(self.names))]

    def label(self, name: str) -> int:
        """Find the label of a class by its name, or by `#index`."""
        if name in self.names:
            return self.names.index(name)
        if name.startswith("#") and name[1:].isdigit() and int(name[1:]) < len(self.names):
            return int(name[1:])
        near = get_close_matches(name, self.names, n=1)
        known = f"did you mean '{near[0]}'?" if near else f"the classes are {', '.join(self.names[:20])}"
        raise UserError(
            f"unknown class '{name}'; {known} (or give a label, from #0 to #{len(self.names) - 1})"
        )
