"""LeCAM regularization of discriminators on few images (Tseng et al. 2021, arXiv:2104.03310)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from genstack.dist import all_reduce_sum
from genstack.errors import UserError
from genstack.losses.weight import check_weight


@dataclass(frozen=True)
class LeCAM:
    """Pulls real logits towards the running mean of fake ones, and fake logits towards that of real ones.

    Args:
        weight: weight in the discriminator's loss; 0.001 to 0.01 for hinge.
        decay: decay of the running means per optimizer step; plain means early in a run.
    """

    weight: float = 0.001
    decay: float = 0.999

    def __post_init__(self) -> None:
        check_weight(self.weight)
        if not 0 <= self.decay < 1:
            raise UserError(f"decay {self.decay} of LeCAM is out of range; it must be at least 0 and below 1")


class Anchors(nn.Module):
    """Running means of real and fake logits; saved with the run.

    They move once per optimizer step, over all processes and accumulated parts, and not in skipped steps.

    Args:
        plan: weight and decay.
    """

    real: Tensor
    fake: Tensor
    steps: Tensor

    def __init__(self, plan: LeCAM):
        super().__init__()
        self.plan = plan
        self.register_buffer("real", torch.tensor(0.0))
        self.register_buffer("fake", torch.tensor(0.0))
        self.register_buffer("steps", torch.tensor(0))
        self.seen: Tensor | None = (
            None  # sum of real logits, of fake ones, and their number, since the last step
        )

    def forward(self, real: Float[Tensor, "b 1 h w"], fake: Float[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
        """Equation 7 with the authors' clamp: only logits beyond the other side's mean are pulled."""
        with torch.no_grad():
            seen = torch.stack([real.sum(), fake.sum(), real.new_tensor(real.numel())]).double()
            self.seen = seen if self.seen is None else self.seen + seen
        distance = relu(real - self.fake).square().mean() + relu(self.real - fake).square().mean()
        return self.plan.weight * (self.steps > 0) * distance

    def after_step(self, skipped: bool) -> None:
        seen, self.seen = self.seen, None
        if skipped or seen is None:
            return
        seen = all_reduce_sum(seen)
        share = torch.clamp(1 / (self.steps + 1), min=1 - self.plan.decay)
        for mean, total in ((self.real, seen[0]), (self.fake, seen[1])):
            mean.lerp_((total / seen[2]).to(mean.dtype), share)
        self.steps += 1
