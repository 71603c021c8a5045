"""MAR: masked positions of latents, each sampled by a small flow (Li et al. 2024, arXiv:2406.11838).

A transformer reads the latents that are known and returns a vector for each masked position. A small network
that reads this vector is a flow from noise to the latents of that position. The paper's head is a diffusion.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import LatentLayout
from genstack.prior.flow_head import FlowHead, Head
from genstack.prior.flow_matching import guided_velocity
from genstack.prior.guidance import Guidance
from genstack.prior.known import Known
from genstack.prior.latent_prior import LatentPrior, Standardization
from genstack.prior.logits import uniforms
from genstack.prior.mask_schedule import MaskSchedule
from genstack.prior.masked_network import MaskedNetwork
from genstack.prior.masked_transformer import lowest_k
from genstack.prior.normals import NormalStream, hash_latents
from genstack.prior.ode import density_nats, solve_step, training_times, velocity_errors
from genstack.prior.options import SamplingOptions
from genstack.prior.order import FixedOrder, Random
from genstack.transformer.backbone import Backbone
from genstack.transformer.encoded_condition import EncodedCondition


class MAR(LatentPrior):
    """Sample masked latents in a few steps: a transformer reads what is known, a flow samples each position.

    Args:
        layout: layout of the latents; set from the compressor, whose bottleneck is Gaussian.
        condition: condition of the prior; set from the data.
        backbone: configuration of the transformer.
        patch: side of the square patches of latents that are one position.
        schedule: mask ratio in training and sampling, and sampling steps.
        order: order of sampling: Random, Halton (spread over the image) or Raster.
        head: the flow that samples a position.
        masks: random masks per image to estimate `nats` and the held-out loss; more are more precise, and
            slower.
        likelihood_steps: steps of the solver for `nats`; more are more precise, and slower.
    """

    likelihood = "estimate (of the order-agnostic upper bound, by ODE)"

    def __init__(
        self,
        layout: LatentLayout,
        condition: Condition,
        backbone: Backbone = Backbone(),
        patch: int = 1,
        schedule: MaskSchedule = MaskSchedule(steps=32),
        order: FixedOrder = Random(),
        head: Head = Head(),
        masks: int = 8,
        likelihood_steps: int = 16,
    ):
        super().__init__()
        if min(masks, likelihood_steps) < 1:
            raise UserError(
                f"masks and likelihood_steps must be at least 1, got {masks} and {likelihood_steps}"
            )
        self.layout, self.condition, self.backbone, self.patch = layout, condition, backbone, patch
        self.schedule, self.order, self.steps, self.head = schedule, order, schedule.steps, head
        self.masks, self.likelihood_steps = masks, likelihood_steps
        self.patches = layout.patches(patch)
        self.standardization = Standardization(layout.dim)
        self.network = MaskedLatentTransformer(self.patches, condition, backbone)
        self.flow = FlowHead(self.patches.dim, backbone.width, head.width, head.depth)

    def loss(self, latents: Float[Tensor, "b d h w"], condition: Tensor) -> Float[Tensor, ""]:
        """Mean squared error of the velocities of masked positions, at the mask ratio of a random time."""
        if self.training:
            condition = self.condition.drop(condition)
        values = self._to_patches(self.standardization(latents))
        counts = self.schedule.training_counts(len(values), self.patches.length, values.device)
        masked = lowest_k(torch.rand(values.shape[:2], device=values.device), counts)
        features = self.network(values, masked, masked, self.network.encode_condition(condition))
        data, features = (
            repeat(each, "m c -> (m repeats) c", repeats=self.head.repeats)
            for each in (values[masked], features)
        )
        times = training_times(len(data), "logit_normal", 1.0, data.device)
        return velocity_errors(partial(self.flow, features), data, torch.randn_like(data), times).mean()

    def held_out_loss(self, latents: Float[Tensor, "b d h w"], condition: Tensor) -> Float[Tensor, " b"]:
        """Mean squared error of velocities over uniform times and numbers of masked positions."""
        normal = NormalStream(hash_latents(latents))

        def errors(data: Tensor, features: Tensor, masked: Tensor, times: Tensor) -> Tensor:
            noise = normal((self.patches.length, self.patches.dim))[masked]
            return velocity_errors(partial(self.flow, features), data, noise, times)

        return self._masked_means(latents, condition, errors)

    def nats(self, latents: Float[Tensor, "b d h w"], condition: Tensor) -> Float[Tensor, " b"]:
        """Estimate the bound on the negative log-density of latents, as `MaskedTransformer.nats_bound` does.

        Masks and random signs are seeded by the latents, so an image always gets the same estimate.
        """
        normal = NormalStream(hash_latents(latents))

        def nats(data: Tensor, features: Tensor, masked: Tensor, times: Tensor) -> Tensor:
            signs = normal((self.patches.length, self.patches.dim))[masked].sign()
            velocity = partial(guided_velocity, partial(self.flow, features), self._unguided(), 0.0)
            return density_nats(velocity, data, signs, self.likelihood_steps)

        bound = self._masked_means(latents, condition, nats) * self.patches.length
        return bound + self.standardization.deviation.log().sum() * self.layout.length

    def _masked_means(
        self,
        latents: Float[Tensor, "b d h w"],
        condition: Tensor,
        measure: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    ) -> Float[Tensor, " b"]:
        """Mean over random masks of the mean over masked positions of a measure.

        Args:
            latents: latents of each image, which seed the masks.
            condition: values of the condition.
            measure: of each masked position, from its latents, its features, the mask and times.
        """
        values, length = self._to_patches(self.standardization(latents)), self.patches.length
        noise = uniforms(hash_latents(latents), self.masks * (2 * length + 1))
        encoded = self.network.encode_condition(condition)
        total = torch.zeros(len(latents), device=latents.device)
        for index, part in enumerate(rearrange(noise, "b (masks n) -> masks b n", masks=self.masks)):
            share, scores, times = part.split([1, length, length], dim=1)
            counts = ((index + share[:, 0]) / self.masks * length).long().clamp(max=length - 1) + 1
            masked = lowest_k(scores, counts)
            features = self.network(values, masked, masked, encoded)
            measured = measure(values[masked], features, masked, times[masked])
            measured = torch.zeros(masked.shape, device=latents.device).masked_scatter(masked, measured)
            total = total + measured.sum(dim=1) / masked.sum(dim=1)
        return total / self.masks

    def sample_values(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Float[Tensor, "b d h w"]:
        """Sample as many positions in each step as the schedule says; each position has its own noise."""
        device, length = known.values.device, self.patches.length
        steps = min(options.steps or self.steps or length, length)
        ranks = self.order.ranks(self.patches, uniforms(seeds, length).to(device))
        noise = options.temperature * NormalStream(seeds.to(device))((length, self.patches.dim))
        values = self._to_patches(self.standardization(known.values))
        masked = ~self._to_patches(known.mask.expand_as(known.values)).all(dim=2)
        encoded, total = self.network.encode_condition(guidance.values), masked.sum(dim=1)
        points = torch.linspace(0, 1, self.head.steps + 1).tolist()
        for step in range(steps):
            if not masked.any():
                break
            left = self.schedule.remaining((step + 1) / steps, total, masked.sum(dim=1))
            sampled = lowest_k(ranks.masked_fill(~masked, torch.inf), masked.sum(dim=1) - left) & masked
            expanded = (guidance.expand(each) for each in (values, masked, sampled))
            features = self.network(*expanded, encoded)
            progress = options.progress(step, steps)
            velocity = partial(guided_velocity, partial(self.flow, features), guidance, progress)
            x = noise[sampled]
            for start, end in pairwise(points):
                x = solve_step(velocity, x, start, end, options.resolve_solver(self.head.solver))
            values = values.masked_scatter(rearrange(sampled, "b n -> b n 1"), x)
            masked = masked & ~sampled
        return self.standardization.restore(self._to_latents(values))

    def _unguided(self) -> Guidance:
        """No guidance."""
        return Guidance(self.condition, torch.empty(0), SamplingOptions())

    def _to_patches(self, latents: Shaped[Tensor, "b d h w"]) -> Shaped[Tensor, "b n c"]:
        return rearrange(latents, "b d (h p) (w q) -> b (h w) (d p q)", p=self.patch, q=self.patch)

    def _to_latents(self, patches: Float[Tensor, "b n c"]) -> Float[Tensor, "b d h w"]:
        height, width = self.patches.grids[0]
        return rearrange(
            patches,
            "b (h w) (d p q) -> b d (h p) (w q)",
            h=height,
            w=width,
            p=self.patch,
            q=self.patch,
        )


class MaskedLatentTransformer(MaskedNetwork):
    """Features of masked positions from the condition and the other latents, by a transformer.

    Args:
        layout: layout of the patches of latents.
        condition: condition of the prior.
        backbone: configuration of the transformer.
    """

    def __init__(self, layout: LatentLayout, condition: Condition, backbone: Backbone):
        super().__init__(layout, condition, backbone)
        self.layout = layout
        self.embed = nn.Linear(layout.dim, backbone.width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(backbone.width))

    def forward(
        self,
        values: Float[Tensor, "b n c"],
        masked: Bool[Tensor, "b n"],
        selected: Bool[Tensor, "b n"],
        encoded: EncodedCondition,
    ) -> Float[Tensor, "m width"]:
        """Features of the selected positions, image by image, in float32.

        Args:
            values: patches of standardized latents; arbitrary where masked.
            masked: True for positions that are not read.
            selected: True for positions whose features are returned.
            encoded: the condition.
        """
        inputs = torch.where(rearrange(masked, "b n -> b n 1"), self.mask_token, self.embed(values))
        return self.features(inputs, encoded)[selected].float()
