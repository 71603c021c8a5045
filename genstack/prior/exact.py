"""Priors with an exact likelihood: one pass of the network gives the logits of all codes."""

from abc import abstractmethod
from typing import final

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from genstack.prior.code_prior import CodePrior


class Exact(CodePrior):
    """A prior that is trained and evaluated by the cross entropy of its logits."""

    @abstractmethod
    def logits(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, "b n K"]:
        """Logits of every code given codes that are sampled before it, in float32."""

    @final
    def loss(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, ""]:
        """Mean cross entropy in nats per code; in training with condition dropout."""
        if self.training:
            condition = self.condition.drop(condition)
        return self._cross_entropy(codes, condition).mean()

    @final
    def nats(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, " b"]:
        return self._cross_entropy(codes, condition).sum(dim=1)

    def _cross_entropy(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, "b n"]:
        logits = rearrange(self.logits(codes, condition), "b n K -> b K n")
        return cross_entropy(logits, codes, reduction="none")
