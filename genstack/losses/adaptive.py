"""The adaptive weight of VQGAN and VA-VAE, which balances gradients (arXiv:2012.09841, equation 7)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genstack.dist import all_reduce_mean
from genstack.errors import UserError

DELTA = 1e-4  # avoids division by 0


@dataclass(frozen=True)
class AdaptiveWeight:
    """Ratio of two gradient norms, of the distance of reconstructions and of another loss, which it scales.

    They are compared at the decoder's last layer for the adversarial loss, and at the layer that writes the
    latents for Alignment (arXiv:2501.01423). Gradients are averaged over processes, not over accumulated
    parts. It costs two short backward passes per step, for Alignment one through the whole decoder, and does
    not work with `compile`.

    Args:
        most: upper limit of the ratio.
    """

    most: float = 1e4

    def __post_init__(self) -> None:
        if not self.most > 0:
            raise UserError(f"most {self.most} of AdaptiveWeight is out of range; it must be above 0")

    def __call__(
        self, distance: Float[Tensor, ""], loss: Float[Tensor, ""], layer: nn.Parameter
    ) -> Float[Tensor, ""]:
        """Compute the ratio, without gradient; 0 if it is not finite."""
        gradients = [
            torch.autograd.grad(term, layer, retain_graph=True)[0].float() for term in (distance, loss)
        ]
        distance_norm, loss_norm = all_reduce_mean(torch.stack(gradients)).flatten(1).norm(dim=1)
        ratio = distance_norm / (loss_norm + DELTA)
        return torch.where(ratio.isfinite(), ratio, 0.0).clamp(max=self.most)
