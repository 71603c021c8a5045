"""What steers a prior: nothing, or class labels, with a null class for guidance (arXiv:2207.12598)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.errors import UserError


class Condition(ABC):
    """A plan of the condition: what it reads from a batch and how it enters a network.

    Subclasses are frozen dataclasses of plain values. `length` is the number of tokens a condition becomes.
    `dropout` is the share of training samples that see the null condition; guidance needs it above 0.
    """

    length: int
    dropout: float

    @abstractmethod
    def of(self, names: tuple[str, ...]) -> "Condition":
        """This plan for data with these classes in the order of their labels; without labels, none."""

    @abstractmethod
    def values(self, labels: Int[Tensor, " b"]) -> Tensor:
        """The values that a prior reads, from what the data says of each image."""

    @abstractmethod
    def null(self, values: Tensor) -> Tensor:
        """The values of no condition, shaped like `values`."""

    @abstractmethod
    def embedding(self, width: int) -> nn.Module:
        """A module from values to tokens, `b length width`."""

    @abstractmethod
    def choose(self, classes: Sequence[str], count: int) -> Int[Tensor, " count"]:
        """Labels for `count` samples, in turn: the classes asked for (names, or `#index`), or else all."""

    def drop(self, values: Tensor) -> Tensor:
        """Values of which a share of `dropout` became null, for training."""
        if self.dropout == 0:
            return values
        dropped = torch.rand(len(values), device=values.device) < self.dropout
        return torch.where(rearrange(dropped, "b -> b" + " 1" * (values.ndim - 1)), self.null(values), values)


class TableEmbedding(nn.Module):
    """One learned token per label: `b -> b 1 width`."""

    def __init__(self, labels: int, width: int):
        super().__init__()
        self.table = nn.Embedding(labels, width)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, values: Int[Tensor, " b"]) -> Float[Tensor, "b 1 width"]:
        return rearrange(self.table(values), "b width -> b 1 width")


@dataclass(frozen=True)
class Unconditional(Condition):
    """No condition: one learned start token."""

    length = 1
    dropout = 0.0

    def of(self, names: tuple[str, ...]) -> "Unconditional":
        return self

    def values(self, labels: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        return torch.zeros_like(labels)

    def null(self, values: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        return values

    def embedding(self, width: int) -> nn.Module:
        return TableEmbedding(1, width)

    def choose(self, classes: Sequence[str], count: int) -> Int[Tensor, " count"]:
        if classes:
            raise UserError(
                f"classes {', '.join(classes)} were asked for, but this prior was trained without classes; "
                f"leave out --classes, or train a prior on data with labels"
            )
        return torch.zeros(count, dtype=torch.int64)


@dataclass(frozen=True)
class ClassLabels(Condition):
    """Class labels, one token, with a null class at index len(names).

    Args:
        names: the classes in the order of their labels; left out, those of the data.
        dropout: share of training samples whose label becomes the null class; 0 makes guidance impossible.
    """

    names: tuple[str, ...] = ()
    dropout: float = 0.1

    length = 1

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout {self.dropout} is out of range; it must be at least 0 and below 1")

    def of(self, names: tuple[str, ...]) -> "ClassLabels":
        if not names:
            raise UserError(
                "the data has no class labels; give it labels, or use the condition Unconditional"
            )
        if self.names not in ((), names):
            raise UserError(
                f"the condition's {len(self.names)} names are not the {len(names)} classes of the data; "
                f"leave `names` out"
            )
        return replace(self, names=names)

    def values(self, labels: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        return labels

    def null(self, values: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        return torch.full_like(values, len(self.names))

    def embedding(self, width: int) -> nn.Module:
        return TableEmbedding(len(self.names) + 1, width)

    def choose(self, classes: Sequence[str], count: int) -> Int[Tensor, " count"]:
        chosen = torch.tensor([self._label(name) for name in classes] or range(len(self.names)))
        return chosen[torch.arange(count) % len(chosen)]

    def _label(self, name: str) -> int:
        if name in self.names:
            return self.names.index(name)
        if name.startswith("#") and name[1:].isdigit() and int(name[1:]) < len(self.names):
            return int(name[1:])
        near = get_close_matches(name, self.names, n=1)
        known = f"did you mean {near[0]}?" if near else f"the classes are {', '.join(self.names[:20])}"
        raise UserError(
            f"class {name} is unknown; {known} (#0 to #{len(self.names) - 1} name a class by its label)"
        )
