"""Ordinary differential equations of flow matching: times, solvers and density (arXiv:2210.02747)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.errors import UserError
from genstack.layout import LatentLayout
from genstack.prior.masked_transformer import stratified_uniforms

#: Velocities at a time from 0 (noise) to 1 (data).
Velocity = Callable[[Float[Tensor, "b ..."], float], Float[Tensor, "b ..."]]
Distribution = Literal["logit_normal", "uniform"]

BASE = 4096  # numbers of latents whose times are not shifted (arXiv:2510.11690, section 4.2)
SMALLEST = 1e-5  # distance of training times from 0 and 1


@dataclass(frozen=True)
class Times:
    """Times of training and sampling.

    Args:
        distribution: distribution of times in training: logit_normal (mostly the middle, arXiv:2403.03206) or
            uniform.
        shift: factor that moves times of training and sampling towards noise, as more numbers per image need
            (arXiv:2403.03206, equation 23); 1 for none, null for sqrt(numbers / 4096), at least 1.
    """

    distribution: Distribution = "logit_normal"
    shift: float | None = None

    def __post_init__(self) -> None:
        if self.shift is not None and not 0 < self.shift < math.inf:
            raise UserError(f"shift must be above 0, or null to follow the size of latents; got {self.shift}")

    def shift_of(self, layout: LatentLayout) -> float:
        """Shift for latents of a layout, with the default resolved."""
        return max(1.0, math.sqrt(prod(layout.shape) / BASE)) if self.shift is None else self.shift


def training_times(
    count: int, distribution: Distribution, shift: float, device: torch.device
) -> Float[Tensor, " b"]:
    """Draw times, spread evenly over a batch."""
    drawn = stratified_uniforms(count, device)
    if distribution == "logit_normal":
        drawn = torch.special.ndtri(drawn.clamp(SMALLEST, 1 - SMALLEST)).sigmoid()
    return shift_times(drawn, shift).clamp(SMALLEST, 1 - SMALLEST)


def shift_times(times: Float[Tensor, "*b"], shift: float) -> Float[Tensor, "*b"]:
    """Move times towards noise, at 0 (arXiv:2403.03206, equation 23)."""
    return times / (shift - (shift - 1) * times)


def solve_step(
    velocity: Velocity, x: Float[Tensor, "b ..."], start: float, end: float, solver: str
) -> Float[Tensor, "b ..."]:
    """Take one step from time `start` to `end`, by Euler or Heun; Heun's last step, to time 1, is Euler's."""
    slope = velocity(x, start)
    after = x + (end - start) * slope
    if solver == "euler" or end == 1:
        return after
    return x + (end - start) * (slope + velocity(after, end)) / 2


def renoise(
    x: Float[Tensor, "b ..."], time: float, earlier: float, noise: Float[Tensor, "b ..."]
) -> Float[Tensor, "b ..."]:
    """Return from a time to an earlier one by noise, so that x keeps the distribution of the path."""
    share = earlier / time
    variance = (1 - earlier) ** 2 - (share * (1 - time)) ** 2
    return share * x + math.sqrt(max(0.0, variance)) * noise


def density_nats(
    velocity: Velocity, data: Float[Tensor, "b ..."], signs: Float[Tensor, "b ..."], steps: int
) -> Float[Tensor, " b"]:
    """Estimate negative log-densities (Song et al. 2020, arXiv:2011.13456, appendix D.2), by Heun's method.

    The ODE is solved from data to noise, whose density is known. On the way, the log-density falls by the
    divergence of the velocity, which random signs estimate (Hutchinson).
    """
    x, total = data, data.new_zeros(len(data))

    def slopes(x: Tensor, time: float) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            slope = velocity(x, time)
            (product,) = torch.autograd.grad((slope * signs).sum(), x)
        return slope.detach(), (product * signs).flatten(1).sum(dim=1)

    for later, earlier in pairwise(torch.linspace(1, 0, steps + 1).tolist()):
        slope, divergence = slopes(x, later)
        there, divergence_there = slopes(x - (later - earlier) * slope, earlier)
        x = x - (later - earlier) * (slope + there) / 2
        total = total + (later - earlier) * (divergence + divergence_there) / 2
    normal = (x.square() + math.log(2 * math.pi)) / 2
    return (total + normal.flatten(1).sum(dim=1)).detach()


def velocity_errors(
    velocity: Callable[[Tensor, Tensor], Tensor],
    data: Float[Tensor, "b ..."],
    noise: Float[Tensor, "b ..."],
    times: Float[Tensor, " b"],
) -> Float[Tensor, " b"]:
    """Mean squared error of each row's velocity on the straight path from noise to data."""
    share = times.view(-1, *(1,) * (data.ndim - 1))
    error = velocity(torch.lerp(noise, data, share), times) - (data - noise)
    return error.square().flatten(1).mean(dim=1)
