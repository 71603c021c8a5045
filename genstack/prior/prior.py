"""Stage two's contract: the distribution of codes, to train, to measure and to draw from."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.condition import Condition


@dataclass(frozen=True)
class SamplingOptions:
    """How codes are drawn from a prior's distributions.

    Args:
        temperature: logits are divided by it; below 1 safer, above 1 more varied, 0 for the likeliest code.
        top_k: draw from the k most likely codes only; 0 for all.
        top_p: draw from the smallest set of codes with at least this probability only; 1 for all.
        guidance: classifier-free guidance s, logits = null + s (conditional - null); 1 for the plain
            conditional distribution, 0 for the unconditional one.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0

    def __post_init__(self) -> None:
        limits = {
            "temperature": (self.temperature >= 0, "at least 0"),
            "top_k": (self.top_k >= 0, "at least 0 (0 keeps all codes)"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "guidance": (self.guidance >= 0, "at least 0"),
        }
        for name, (kept, limit) in limits.items():
            if not kept:
                raise UserError(f"{name} {getattr(self, name)} is out of range; it must be {limit}")


class Prior(nn.Module, ABC):
    """A distribution over codes, built from the layout of the codes and the condition that steers it.

    Codes are int64 in [0, layout.codebook_size), `b n` with n = layout.length. Condition values are whatever
    `condition.values` makes of a batch.
    """

    layout: CodeLayout
    condition: Condition
    #: What `nats` is: "exact", or the name of the bound.
    likelihood: ClassVar[str] = "exact"

    @abstractmethod
    def loss(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, ""]:
        """The training objective, in nats per code where it is a likelihood."""

    @abstractmethod
    def nats(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, " b"]:
        """Negative log-likelihood of each image's codes in nats, summed over its codes; see `likelihood`.

        Measured on a prior in eval mode.
        """

    @abstractmethod
    def sample(
        self, condition: Tensor, options: SamplingOptions, seeds: Int[Tensor, " b"]
    ) -> Int[Tensor, "b n"]:
        """Codes drawn for each row of `condition`; row i depends on its condition and seed, not on the batch.

        Raises:
            UserError: guidance other than 1 from a prior that was trained without condition dropout.
        """
