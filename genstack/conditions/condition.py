"""What steers a prior: the contract, with a null value for guidance (Ho, Salimans 2022, arXiv:2207.12598)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar, final

import torch
from einops import rearrange
from jaxtyping import Bool
from torch import Tensor, nn

from genstack.compressor.compressor import Compressor
from genstack.conditions.embedding import ConditionEmbedding
from genstack.errors import UserError
from genstack.inputs import ConditionInputs, DataInfo, Prompts

Item = TypeVar("Item")


class Condition(ABC):
    """A plan of the condition: what it reads of the facts and how it enters a network.

    Subclasses are frozen dataclasses of plain values, one file each in `conditions/`. `length` is the number
    of tokens that a condition becomes. `dropout` is the share of training samples that see the null
    condition; guidance needs it above 0.
    """

    length: int
    dropout: float
    #: Run or published file whose compressor it reads images by; "" for none. `reading` gives it that.
    compressor: str = ""
    #: That compressor, frozen: no part of a prior's weights, it lies beside the prior in its file.
    network: nn.Module | None = None
    #: Hash of the weights of a frozen network that it brings, in its file or not; "" without one.
    weights: str = ""

    @abstractmethod
    def of(self, offer: DataInfo) -> "Condition":
        """This plan for data that offers so much.

        Raises:
            UserError: the data lacks what the condition reads.
        """

    def reading(self, network: Compressor, weights: str) -> "Condition":
        """This plan with the frozen compressor that it reads images by.

        Args:
            network: the compressor.
            weights: its hash.
        """
        raise TypeError(f"{type(self).__name__} reads no images by a compressor")

    @abstractmethod
    def values(self, facts: ConditionInputs) -> Tensor:
        """The values that a prior reads, one row for each image, where `facts.labels` lies."""

    @abstractmethod
    def null(self, values: Tensor) -> Tensor:
        """The values of no condition, shaped like `values`."""

    @abstractmethod
    def embedding(self, width: int) -> ConditionEmbedding:
        """A module from values to tokens, `b length width`."""

    def padding_mask(self, values: Tensor) -> Bool[Tensor, "b length"] | None:
        """True for tokens that only fill up, so that no other token sees them; None where all are seen."""
        return None

    @abstractmethod
    def choose(self, wishes: Prompts, count: int) -> ConditionInputs:
        """Inputs for `count` samples, the wishes met in turn.

        Raises:
            UserError: a wish that this condition cannot meet, or none where it needs one.
        """

    @abstractmethod
    def shown(self, held_out: ConditionInputs) -> ConditionInputs:
        """Inputs for as many samples to look at in training, from those of images laid aside."""

    @abstractmethod
    def tell(self, facts: ConditionInputs) -> Sequence[Mapping[str, str]]:
        """What steers each image, by the name of its kind, for people and for files."""

    @final
    def drop(self, values: Tensor) -> Tensor:
        """Values of which a share of `dropout` became null, for training."""
        if self.dropout == 0:
            return values
        dropped = torch.rand(len(values), device=values.device) < self.dropout
        return torch.where(rearrange(dropped, "b -> b" + " 1" * (values.ndim - 1)), self.null(values), values)


def check_dropout(dropout: float) -> None:
    """Refuse what is no share of the training samples.

    Raises:
        UserError: it is below 0, or 1 and above.
    """
    if not 0 <= dropout < 1:
        raise UserError(f"dropout {dropout} is out of range; it must be at least 0 and below 1")


def in_turn(wanted: Sequence[Item], count: int) -> Iterator[Item]:
    """So many of what is wanted, from the first on again and again."""
    return (wanted[index % len(wanted)] for index in range(count))


def only(wishes: Prompts, kind: str, trained: str) -> None:
    """Refuse wishes of every kind but one ("" for all kinds), for a prior that was trained `trained`.

    Raises:
        UserError: there are others.
    """
    flags = {
        "classes": "--classes",
        "captions": "--caption and --captions",
        "condition images": "--condition-images",
        "coordinates": "--coordinates",
    }
    for name, asked in wishes.kinds.items():
        if asked and name != kind:
            raise UserError(
                f"{name} were asked for, but this prior was trained {trained}; leave out {flags[name]}, "
                f"or train a prior with a condition that reads {name}"
            )
