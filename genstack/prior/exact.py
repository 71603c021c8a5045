"""Priors without approximation: one pass of the network gives the logits of all codes."""

from abc import abstractmethod
from typing import final

from jaxtyping import Float, Int
from torch import Tensor

from genstack.prior.code_prior import CodePrior
from genstack.prior.symbols import Distribution


class Exact(CodePrior):
    """A prior that is trained and evaluated by the cross entropy of its logits."""

    #: Distribution of a code given its logits.
    distribution: Distribution

    @abstractmethod
    def logits(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, "b n K"]:
        """Logits of every code given codes that are sampled before it, in float32; K outputs of the head."""

    def targets_and_inputs(
        self, codes: Int[Tensor, "b *pair n"]
    ) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b n"]]:
        """Codes to predict and codes that the network reads, in training; by default the same."""
        return codes, codes

    @final
    def loss(self, codes: Int[Tensor, "b *pair n"], condition: Tensor) -> Float[Tensor, ""]:
        """Mean cross entropy in nats per code; in training with condition dropout."""
        targets = inputs = codes
        if self.training:
            condition = self.condition.drop(condition)
            targets, inputs = self.targets_and_inputs(codes)
        return self._cross_entropy(targets, inputs, condition).mean()

    @final
    def nats(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, " b"]:
        return self._cross_entropy(codes, codes, condition).sum(dim=1)

    def _cross_entropy(
        self, codes: Int[Tensor, "b n"], inputs: Int[Tensor, "b n"], condition: Tensor
    ) -> Float[Tensor, "b n"]:
        """Cross entropy of each code, in nats, from codes that the network reads."""
        return self.distribution.nats(self.logits(inputs, condition), codes)
