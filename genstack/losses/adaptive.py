"""The adaptive weight of VQGAN: adversary and closeness pull equally (arXiv:2012.09841, equation 7)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genstack.dist import all_reduce_mean
from genstack.errors import UserError

DELTA = 1e-4  # against division by 0


@dataclass(frozen=True)
class AdaptiveWeight:
    """Multiplies the adversarial term by the ratio of two gradients' norms at the decoder's last layer.

    The gradients are those of all processes together, of each accumulated part by itself. Costs two short
    backward passes a step; cannot be had together with `compile`.

    Args:
        most: the largest ratio.
    """

    most: float = 1e4

    def __post_init__(self) -> None:
        if not self.most > 0:
            raise UserError(f"most {self.most} of an adaptive weight is out of range; it must be above 0")

    def __call__(
        self, closeness: Float[Tensor, ""], adversarial: Float[Tensor, ""], last_layer: nn.Parameter
    ) -> Float[Tensor, ""]:
        """The ratio, a plain number; 0, which leaves the term out, where it is not finite."""
        gradients = [
            torch.autograd.grad(term, last_layer, retain_graph=True)[0].float()
            for term in (closeness, adversarial)
        ]
        close, pushed = all_reduce_mean(torch.stack(gradients)).flatten(1).norm(dim=1)
        ratio = close / (pushed + DELTA)
        return torch.where(ratio.isfinite(), ratio, 0.0).clamp(max=self.most)
