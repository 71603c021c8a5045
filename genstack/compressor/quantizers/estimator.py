"""How a gradient passes a choice: straight through (arXiv:1308.3432) or turned (arXiv:2410.06424)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from genstack.compressor.quantizers.straight_through import straight_through

SHORTEST = 1e-6  # vectors are taken for no shorter than this where their length divides


class Estimator(ABC):
    """A plan of the gradient of a choice."""

    @abstractmethod
    def __call__(
        self, hard: Float[Tensor, "*shape d"], soft: Float[Tensor, "*shape d"]
    ) -> Float[Tensor, "*shape d"]:
        """The value of `hard`, bit for bit, and a gradient for `soft`."""


@dataclass(frozen=True)
class StraightThrough(Estimator):
    """The gradient of what was chosen, as it is."""

    def __call__(
        self, hard: Float[Tensor, "*shape d"], soft: Float[Tensor, "*shape d"]
    ) -> Float[Tensor, "*shape d"]:
        return straight_through(hard, soft)


@dataclass(frozen=True)
class RotationTrick(Estimator):
    """The gradient, turned and scaled as the choice is turned and scaled against the latent (section 4).

    The chosen vector is |q| / |e| R e with R = I - 2 r r' + 2 q' e' (equation 4, q' and e' of unit length,
    r that of their sum); R and the scale are constants to the gradient.
    """

    def __call__(
        self, hard: Float[Tensor, "*shape d"], soft: Float[Tensor, "*shape d"]
    ) -> Float[Tensor, "*shape d"]:
        source, target = F.normalize(soft.detach(), dim=-1), F.normalize(hard.detach(), dim=-1)
        between = F.normalize(source + target, dim=-1)
        lengths = soft.detach().norm(dim=-1, keepdim=True).clamp(min=SHORTEST)
        scale = hard.detach().norm(dim=-1, keepdim=True) / lengths
        mirrored = soft - 2 * between * (soft * between).sum(-1, keepdim=True)
        turned = mirrored + 2 * target * (soft * source).sum(-1, keepdim=True)
        return straight_through(hard, scale * turned)
