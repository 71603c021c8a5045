"""Gradient estimators: straight-through (arXiv:1308.3432) and rotation trick (arXiv:2410.06424)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

MIN_LENGTH = 1e-6  # of a vector in a division


def straight_through(hard: Float[Tensor, "*shape"], soft: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the value of `hard`, bit for bit, with the gradient of `soft`."""
    return hard.detach() + (soft - soft.detach())


class GradientEstimator(ABC):
    """Gradient of the quantized latents with respect to the latents."""

    @abstractmethod
    def __call__(
        self, hard: Float[Tensor, "*shape d"], soft: Float[Tensor, "*shape d"]
    ) -> Float[Tensor, "*shape d"]:
        """Return the value of `hard`, bit for bit, with a gradient for `soft`."""


@dataclass(frozen=True)
class StraightThrough(GradientEstimator):
    """Pass the gradient unchanged."""

    def __call__(
        self, hard: Float[Tensor, "*shape d"], soft: Float[Tensor, "*shape d"]
    ) -> Float[Tensor, "*shape d"]:
        return straight_through(hard, soft)


@dataclass(frozen=True)
class RotationTrick(GradientEstimator):
    """Rotate and scale the gradient like the latent to its row (section 4).

    The chosen vector is |q| / |e| R e with R = I - 2 r r' + 2 q' e' (equation 4). q', e' and r are the unit
    vectors of q, e and q' + e'; R and the scale are constants to the gradient.
    """

    def __call__(
        self, hard: Float[Tensor, "*shape d"], soft: Float[Tensor, "*shape d"]
    ) -> Float[Tensor, "*shape d"]:
        source, target = F.normalize(soft.detach(), dim=-1), F.normalize(hard.detach(), dim=-1)
        between = F.normalize(source + target, dim=-1)
        lengths = soft.detach().norm(dim=-1, keepdim=True).clamp(min=MIN_LENGTH)
        scale = hard.detach().norm(dim=-1, keepdim=True) / lengths
        reflected = soft - 2 * between * (soft * between).sum(-1, keepdim=True)
        rotated = reflected + 2 * target * (soft * source).sum(-1, keepdim=True)
        return straight_through(hard, scale * rotated)
