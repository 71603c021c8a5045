"""Class labels, with a null class for guidance (Ho and Salimans 2022, arXiv:2207.12598)."""

from dataclasses import dataclass, replace
from difflib import get_close_matches

import torch
from jaxtyping import Int
from torch import Tensor

from genstack.conditions.condition import Condition, check_dropout, only
from genstack.conditions.embedding import ConditionEmbedding, TableEmbedding
from genstack.errors import UserError
from genstack.inputs import ConditionInputs, DataInfo, Prompts


@dataclass(frozen=True)
class ClassLabels(Condition):
    """Class labels, one token, with a null class at index len(names).

    Args:
        names: the classes in the order of their labels; left out, those of the data.
        dropout: share of training samples whose label becomes the null class; 0 makes guidance impossible.
        untrained: labels without a training image, sampled only by name; left out, those of the data.
    """

    names: tuple[str, ...] = ()
    dropout: float = 0.1
    untrained: tuple[int, ...] = ()

    length = 1

    def __post_init__(self) -> None:
        check_dropout(self.dropout)

    def of(self, offer: DataInfo) -> "ClassLabels":
        if not offer.classes:
            raise UserError(
                "the data has no class labels; give it labels, or use the condition Unconditional"
            )
        if self.names not in ((), offer.classes):
            raise UserError(
                f"the condition's {len(self.names)} names are not the {len(offer.classes)} classes of the "
                f"data; leave `names` out"
            )
        return replace(self, names=offer.classes, untrained=offer.untrained)

    def values(self, facts: ConditionInputs) -> Int[Tensor, " b"]:
        return facts.labels

    def null(self, values: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        return torch.full_like(values, len(self.names))

    def embedding(self, width: int) -> ConditionEmbedding:
        return TableEmbedding(len(self.names) + 1, width)

    def choose(self, wishes: Prompts, count: int) -> ConditionInputs:
        """The classes asked for, or else all."""
        only(wishes, "classes", "on class labels")
        chosen = torch.tensor([self.label(name) for name in wishes.classes] or self.trained)
        return ConditionInputs(chosen[torch.arange(count) % len(chosen)])

    def shown(self, held_out: ConditionInputs) -> ConditionInputs:
        """All classes in turn."""
        return self.choose(Prompts(), len(held_out))

    def tell(self, facts: ConditionInputs) -> list[dict[str, str]]:
        return [{"class": self.names[label]} for label in facts.labels.tolist()]

    @property
    def trained(self) -> list[int]:
        """Labels that are sampled in turn: those with a training image, or all if none has one."""
        return sorted({*range(len(self.names))} - {*self.untrained}) or [*range(len(self.names))]

    def label(self, name: str) -> int:
        """The label of a class by its name, or by `#index`."""
        if name in self.names:
            return self.names.index(name)
        if name.startswith("#") and name[1:].isdigit() and int(name[1:]) < len(self.names):
            return int(name[1:])
        near = get_close_matches(name, self.names, n=1)
        known = f"did you mean {near[0]}?" if near else f"the classes are {', '.join(self.names[:20])}"
        raise UserError(
            f"class {name} is unknown; {known} (#0 to #{len(self.names) - 1} name a class by its label)"
        )
