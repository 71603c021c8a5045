"""Flow matching on straight paths (Lipman et al. 2022, arXiv:2210.02747; SiT, arXiv:2401.08740).

Latents x_t = (1 - t) noise + t data move from noise at time 0 to data at time 1 with the velocity
data - noise. A network learns its mean given x_t; solving dx = v(x, t) dt from 0 to 1 samples the data.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from math import prod
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import LatentLayout
from genstack.prior.guidance import Guidance
from genstack.prior.known import Known
from genstack.prior.latent_prior import LatentPrior, Standardization
from genstack.prior.logits import uniforms
from genstack.prior.normals import NormalStream, hash_latents
from genstack.prior.ode import (
    Times,
    density_nats,
    renoise,
    shift_times,
    solve_step,
    training_times,
    velocity_errors,
)
from genstack.prior.options import SamplingOptions
from genstack.prior.velocity_transformer import VelocityTransformer
from genstack.transformer.backbone import Backbone
from genstack.transformer.encoded_condition import EncodedCondition

HELD_OUT_TIMES = 8  # per image; the held-out loss of two runs is of the same times


class FlowMatching(LatentPrior):
    """Predict the velocity from noise to latents, by a transformer over patches; sampling solves an ODE.

    Args:
        layout: layout of the latents; set from the compressor, whose bottleneck is Gaussian.
        condition: condition of the prior; set from the data.
        backbone: configuration of the transformer, which needs adaLN.
        patch: side of the square patches of latents that are one token.
        times: distribution and shift of times.
        solver: solver of the ODE, unless sampling sets its own: euler (one pass per step) or heun (two).
        steps: steps of the solver, unless sampling sets its own.
        resamplings: passes over each step while some latents are known, so that both parts fit
            (RePaint, arXiv:2201.09865).
        likelihood_steps: steps of the solver for `nats`; more are more precise, and slower.
    """

    likelihood = "estimate (probability-flow ODE, Hutchinson)"

    def __init__(
        self,
        layout: LatentLayout,
        condition: Condition,
        backbone: Backbone = Backbone(adaln="own"),
        patch: int = 1,
        times: Times = Times(),
        solver: Literal["euler", "heun"] = "heun",
        steps: int = 25,
        resamplings: int = 4,
        likelihood_steps: int = 32,
    ):
        super().__init__()
        if min(steps, resamplings, likelihood_steps) < 1:
            raise UserError(
                f"steps, resamplings and likelihood_steps must be at least 1, got {steps}, {resamplings} and "
                f"{likelihood_steps}"
            )
        self.layout, self.condition, self.backbone, self.patch = layout, condition, backbone, patch
        self.times, self.solver, self.steps = times, solver, steps
        self.resamplings, self.likelihood_steps = resamplings, likelihood_steps
        self.standardization = Standardization(layout.dim)
        self.network = VelocityTransformer(layout, condition, backbone, patch)

    @property
    def time_shift(self) -> float:
        """Shift of times, with the default resolved."""
        return self.times.shift_of(self.layout)

    def loss(self, latents: Float[Tensor, "b d h w"], condition: Tensor) -> Float[Tensor, ""]:
        """Mean squared error of velocities at random times; in training with condition dropout."""
        if self.training:
            condition = self.condition.drop(condition)
        times = training_times(len(latents), self.times.distribution, self.time_shift, latents.device)
        noise, velocity = torch.randn_like(latents), self._velocity(self.network.encode_condition(condition))
        return velocity_errors(velocity, self.standardization(latents), noise, times).mean()

    def held_out_loss(self, latents: Float[Tensor, "b d h w"], condition: Tensor) -> Float[Tensor, " b"]:
        """Mean squared error of velocities over uniform times, whatever the distribution of training times.

        Times and noise are seeded by the latents, so an image always gets the same estimate.
        """
        seeds, data = hash_latents(latents), self.standardization(latents)
        normal, offsets = NormalStream(seeds), uniforms(seeds, HELD_OUT_TIMES)
        velocity = self._velocity(self.network.encode_condition(condition))
        errors = [
            velocity_errors(velocity, data, normal(self.layout.shape), (index + offset) / HELD_OUT_TIMES)
            for index, offset in enumerate(offsets.unbind(dim=1))
        ]
        return torch.stack(errors).mean(dim=0)

    def nats(self, latents: Float[Tensor, "b d h w"], condition: Tensor) -> Float[Tensor, " b"]:
        """Estimate the negative log-density of latents; the random signs are seeded by the latents."""
        signs = uniforms(hash_latents(latents), prod(self.layout.shape)).view_as(latents).round() * 2 - 1
        velocity = self._velocity(self.network.encode_condition(condition))
        nats = density_nats(
            lambda x, time: velocity(x, x.new_full((len(x),), time)),
            self.standardization(latents),
            signs,
            self.likelihood_steps,
        )
        return nats + self.standardization.deviation.log().sum() * self.layout.length

    def _velocity(self, encoded: EncodedCondition) -> Callable[[Tensor, Tensor], Tensor]:
        """The network with its condition."""
        return lambda x, times: self.network(x, times, encoded)

    def sample_values(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Float[Tensor, "b d h w"]:
        """Solve the ODE from noise at time 0; known latents are put on their own straight paths."""
        normal = NormalStream(seeds.to(known.values.device))
        noise = options.temperature * normal(self.layout.shape)
        network = self._velocity(self.network.encode_condition(guidance.values))
        data, given = self.standardization(known.values), known.mask.flatten(1).any(dim=1)
        given = rearrange(given, "b -> b 1 1 1")
        steps, x = options.steps or self.steps or 1, noise
        points = shift_times(torch.linspace(0, 1, steps + 1), self.time_shift).tolist()
        for step, (start, end) in enumerate(pairwise(points)):
            velocity = partial(guided_velocity, network, guidance, options.progress(step, steps))
            for repetition in range(self.resamplings if given.any() else 1):
                before = x
                if repetition:
                    before = torch.where(given, renoise(x, end, start, normal(self.layout.shape)), x)
                before = torch.where(known.mask, torch.lerp(noise, data, start), before)
                after = solve_step(velocity, before, start, end, options.resolve_solver(self.solver))
                x = after if repetition == 0 else torch.where(given, after, x)
        return self.standardization.restore(x)


def guided_velocity(
    network: Callable[[Tensor, Tensor], Tensor],
    guidance: Guidance,
    progress: float,
    x: Float[Tensor, "b ..."],
    time: float,
) -> Float[Tensor, "b ..."]:
    """Velocity with classifier-free guidance."""
    rows = guidance.expand(x)
    return guidance.apply(network(rows, rows.new_full((len(rows),), time)), progress)
