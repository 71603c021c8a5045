"""The straight-through estimator (arXiv:1308.3432): forwards a choice, backwards the identity."""

from jaxtyping import Float
from torch import Tensor


def straight_through(hard: Float[Tensor, "*shape"], soft: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The value of `hard`, bit for bit, and the gradient of `soft`."""
    return hard.detach() + (soft - soft.detach())
