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
    """Penalty on the distance of real logits from the mean of fake ones, and of fake from real ones.

    Args:
        weight: weight in the discriminator's loss; 0.001 to 0.01 for hinge.
        decay: decay of the running means per optimizer step; early in a run they are plain means.
    """

    weight: float = 0.001
    decay: float = 0.999

    def __post_init__(self) -> None:
        check_weight(self.weight)
        if not 0 <= self.decay < 1:
            raise UserError(f"decay {self.decay} of LeCAM is out of range; it must be at least 0 and below 1")


class Anchors(nn.Module):
    """Running means of real and fake logits, saved in checkpoints.

    They are updated once per optimizer step, over all processes and accumulated parts, but not in skipped
    steps.

    Args:
        config: weight and decay.
    """

    real: Tensor
    fake: Tensor
    steps: Tensor

    def __init__(self, config: LeCAM):
        super().__init__()
        self.config = config
        self.register_buffer("real", torch.tensor(0.0))
        self.register_buffer("fake", torch.tensor(0.0))
        self.register_buffer("steps", torch.tensor(0))
        self.sums: Tensor | None = None  # of real and fake logits since the last step, and their number

    def forward(self, real: Float[Tensor, "b 1 h w"], fake: Float[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
        """Compute equation 7 with the authors' clamp: only logits beyond the other mean are penalized."""
        with torch.no_grad():
            sums = torch.stack([real.sum(), fake.sum(), real.new_tensor(real.numel())]).double()
            self.sums = sums if self.sums is None else self.sums + sums
        distance = relu(real - self.fake).square().mean() + relu(self.real - fake).square().mean()
        return self.config.weight * (self.steps > 0) * distance

    def after_step(self, skipped: bool) -> None:
        sums, self.sums = self.sums, None
        if skipped or sums is None:
            return
        sums = all_reduce_sum(sums)
        share = torch.clamp(1 / (self.steps + 1), min=1 - self.config.decay)
        for mean, total in ((self.real, sums[0]), (self.fake, sums[1])):
            mean.lerp_((total / sums[2]).to(mean.dtype), share)
        self.steps += 1
