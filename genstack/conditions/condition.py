"""Interface of conditions, with a null value for guidance (Ho, Salimans 2022, arXiv:2207.12598)."""

from abc import ABC, abstractmethod
from typing import final

import torch
from einops import rearrange
from jaxtyping import Bool
from torch import Tensor, nn

from genstack.compressor.compressor import Compressor
from genstack.conditions.embedding import ConditionEmbedding
from genstack.conditions.modality import Modality
from genstack.errors import UserError
from genstack.inputs import ConditionInputs, DataInfo


class Condition(ABC):
    """Configuration of a condition: its values, and how they become tokens of a prior.

    Subclasses are frozen dataclasses of plain values, one file each in `conditions/`. `length` is the number
    of tokens. `dropout` is the share of training samples that get the null condition; guidance needs it
    above 0, and `__post_init__` checks it by `check_dropout`.
    """

    length: int
    dropout: float
    #: Run or published file of the compressor that encodes condition images; "" for none.
    compressor: str = ""
    #: That compressor, frozen; it is saved beside the prior, not as part of it.
    network: nn.Module | None = None
    #: Hash of the weights of a frozen network; "" without one.
    weights_hash: str = ""

    @property
    @abstractmethod
    def modality(self) -> Modality:
        """Prompts that the condition takes, and words for its inputs."""

    @abstractmethod
    def fit(self, data: DataInfo) -> "Condition":
        """Return a copy with what is set from the data, such as class names."""

    def with_compressor(self, network: Compressor, weights_hash: str) -> "Condition":
        """Return a copy with the frozen compressor of condition images.

        Args:
            network: the compressor.
            weights_hash: hash of its weights.
        """
        raise TypeError(f"{type(self).__name__} does not use a compressor")

    @abstractmethod
    def encode(self, inputs: ConditionInputs) -> Tensor:
        """Values that a prior reads, one row per image, on the device of `inputs.labels`."""

    @abstractmethod
    def null(self, values: Tensor) -> Tensor:
        """Values of the null condition, shaped like `values`."""

    @abstractmethod
    def embedding(self, width: int) -> ConditionEmbedding:
        """Build a module from values to tokens, `b length width`."""

    def padding_mask(self, values: Tensor) -> Bool[Tensor, "b length"] | None:
        """True for padding tokens, which other tokens do not attend to; None without padding."""
        return None

    @final
    def drop(self, values: Tensor) -> Tensor:
        """Replace a random share `dropout` of values by the null condition, for training."""
        if self.dropout == 0:
            return values
        dropped = torch.rand(len(values), device=values.device) < self.dropout
        return torch.where(rearrange(dropped, "b -> b" + " 1" * (values.ndim - 1)), self.null(values), values)


def check_dropout(dropout: float) -> None:
    """Check that a dropout is from 0 to below 1."""
    if not 0 <= dropout < 1:
        raise UserError(f"dropout must be at least 0 and below 1, got {dropout}")
