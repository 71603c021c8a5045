"""How codes are drawn from a prior's distributions: what a user may choose in sampling."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from genstack.errors import UserError

Schedule = Literal["constant", "linear", "cosine", "power"]


@dataclass(frozen=True)
class SamplingOptions:
    """How codes are drawn from a prior's distributions.

    Args:
        temperature: 1 as learned, below 1 safer, above 1 more varied, 0 takes the likeliest code each time;
            logits are divided by it.
        top_k: draw from the k likeliest codes only; 0 for all.
        top_p: draw from the smallest set of codes that has at least this probability; 1 for all.
        min_p: draw from codes with at least this share of the likeliest one's probability; 0 for all.
        guidance: strength s of classifier-free guidance towards what is asked, logits = null + s (conditional
            - null); 1 for none, 0 ignores what is asked.
        guidance_schedule: how guidance grows from 1 at the first codes to its strength at the last: constant
            (at full strength from the start), linear, cosine, or power (with the square of the way gone).
        guidance_interval: first and last share of the way, from 0 to 1, on which guidance acts.
        steps: passes through the network for an image, of priors that can choose (masked, diffusion); 0 for
            the prior's own number.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    guidance: float = 1.0
    guidance_schedule: Schedule = "constant"
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    steps: int = 0

    def __post_init__(self) -> None:
        first, last = self.guidance_interval
        limits = {
            "temperature": (self.temperature >= 0, "at least 0"),
            "top_k": (self.top_k >= 0, "at least 0 (0 keeps all codes)"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (0 <= self.min_p <= 1, "at least 0 and at most 1"),
            "guidance": (0 <= self.guidance < math.inf, "at least 0, and finite"),
            "guidance_schedule": (
                self.guidance_schedule in get_args(Schedule),
                f"one of {', '.join(get_args(Schedule))}",
            ),
            "guidance_interval": (0 <= first <= last <= 1, "two numbers from 0 to 1, the smaller first"),
            "steps": (self.steps >= 0, "at least 0 (0 leaves the choice to the prior)"),
        }
        for name, (kept, limit) in limits.items():
            if not kept:
                raise UserError(f"{name} {getattr(self, name)} is out of range; it must be {limit}")

    def guidance_at(self, progress: float) -> float:
        """Guidance after a share of the way, from 0 at the first codes drawn to 1 at the last."""
        first, last = self.guidance_interval
        if not first <= progress <= last:
            return 1.0
        grown = {
            "constant": 1.0,
            "linear": progress,
            "cosine": (1 - math.cos(math.pi * progress)) / 2,
            "power": progress**2,
        }[self.guidance_schedule]
        return 1 + (self.guidance - 1) * grown
