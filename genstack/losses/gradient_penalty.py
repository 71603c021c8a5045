"""R1 gradient penalty (Mescheder et al. 2018, arXiv:1801.04406)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from genstack.errors import UserError
from genstack.losses.weight import check_weight


@dataclass(frozen=True)
class R1:
    """Penalty on the squared gradient of an image's summed logits with respect to its pixels.

    Lazy as in StyleGAN2 (arXiv:1912.04958): it is computed every `every` steps and multiplied by `every`.

    Args:
        weight: gamma of the paper; about 10 for one logit per image, 0.1 for many patches.
        every: optimizer steps between two penalties; each costs about two more discriminator passes.
    """

    weight: float = 10.0
    every: int = 16

    def __post_init__(self) -> None:
        check_weight(self.weight)
        if self.every < 1:
            raise UserError(f"every {self.every} of R1 is out of range; it must be at least 1")

    def due(self, step: int) -> bool:
        """Return True in steps with a penalty."""
        return step % self.every == 0

    def __call__(
        self, discriminate: Callable[[Tensor], Tensor], images: Float[Tensor, "b c H W"]
    ) -> Float[Tensor, ""]:
        """Compute equation 9 times `every`, in float32, since second derivatives amplify rounding."""
        with torch.autocast(images.device.type, enabled=False):
            images = images.detach().float().requires_grad_()
            (gradient,) = torch.autograd.grad(discriminate(images).sum(), images, create_graph=True)
            return self.every * self.weight / 2 * reduce(gradient.square(), "b c H W -> b", "sum").mean()
