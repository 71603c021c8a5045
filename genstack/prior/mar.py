"""MAR: masked positions of latents, each sampled by a small flow (Li et al. 2024, arXiv:2406.11838).

A transformer reads the latents that are known and returns a vector for each masked position. A small network
that reads this vector is a flow from noise to the latents of that position. The paper's head is a diffusion.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn.functional import silu

from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import LatentLayout
from genstack.prior.flow_matching import guided_velocity
from genstack.prior.guidance import Guidance
from genstack.prior.known import Known
from genstack.prior.latent_prior import LatentPrior, Standardization
from genstack.prior.logits import uniforms
from genstack.prior.masked import Schedule, mask_ratio
from genstack.prior.masked_transformer import lowest_k, stratified_uniforms
from genstack.prior.normals import NormalStream, hash_latents
from genstack.prior.ode import density_nats, solve_step, training_times, velocity_errors
from genstack.prior.options import SamplingOptions
from genstack.prior.order import FixedOrder, Random
from genstack.prior.velocity_transformer import TimeEmbedding
from genstack.transformer.adaln import AdaLN, Modulation, modulate
from genstack.transformer.backbone import Backbone
from genstack.transformer.encoded_condition import EncodedCondition
from genstack.transformer.masks import Full
from genstack.transformer.positions import IndexEmbedding
from genstack.transformer.transformer import Transformer

EPSILON = 1e-6  # of the norms in the flow's network


@dataclass(frozen=True)
class Head:
    """Configuration of the flow that samples a position.

    Args:
        width: channels of its network.
        depth: residual layers of its network.
        repeats: times and noises of each masked position in a training step.
        steps: steps of its solver.
        solver: euler (one pass per step) or heun (two), unless sampling sets its own.
    """

    width: int = 256
    depth: int = 3
    repeats: int = 4
    steps: int = 25
    solver: Literal["euler", "heun"] = "euler"

    def __post_init__(self) -> None:
        for name in ("width", "depth", "repeats", "steps"):
            if (count := getattr(self, name)) < 1:
                raise UserError(f"{name} of the head must be at least 1, got {count}")


class MAR(LatentPrior):
    """Sample masked latents in a few steps: a transformer reads what is known, a flow samples each position.

    Args:
        layout: layout of the latents; set from the compressor, whose bottleneck is Gaussian.
        condition: condition of the prior; set from the data.
        backbone: configuration of the transformer.
        patch: side of the square patches of latents that are one position.
        schedule: mask ratio at progress r, in training and sampling, as in the prior Masked.
        order: order of sampling: Random, Halton (spread over the image) or Raster.
        steps: sampling steps, unless sampling sets its own.
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
        schedule: Schedule = "cosine",
        order: FixedOrder = Random(),
        steps: int = 32,
        head: Head = Head(),
        masks: int = 8,
        likelihood_steps: int = 16,
    ):
        super().__init__()
        if min(steps, masks, likelihood_steps) < 1:
            raise UserError(
                f"steps, masks and likelihood_steps must be at least 1, got {steps}, {masks} and "
                f"{likelihood_steps}"
            )
        self.layout, self.condition, self.backbone, self.patch = layout, condition, backbone, patch
        self.schedule, self.order, self.steps, self.head = schedule, order, steps, head
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
        ratio = mask_ratio(self.schedule, stratified_uniforms(len(values), values.device))
        length = self.patches.length
        counts = (ratio * length).ceil().long().clamp(1, length)
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
            progress = (step + 1) / steps
            ratio = float(mask_ratio(self.schedule, torch.tensor(progress, dtype=torch.float64)))
            left = torch.minimum((ratio * total).floor().long(), masked.sum(dim=1) - 1).clamp(min=0)
            sampled = lowest_k(ranks.masked_fill(~masked, torch.inf), masked.sum(dim=1) - left) & masked
            expanded = (guidance.expand(each) for each in (values, masked, sampled))
            features = self.network(*expanded, encoded)
            velocity = partial(
                guided_velocity, partial(self.flow, features), guidance, step / max(1, steps - 1)
            )
            x = noise[sampled]
            for start, end in pairwise(points):
                x = solve_step(velocity, x, start, end, options.solver or self.head.solver)
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


class MaskedLatentTransformer(nn.Module):
    """Features of masked positions from the condition and the other latents, by a transformer.

    Args:
        layout: layout of the patches of latents.
        condition: condition of the prior.
        backbone: configuration of the transformer.
    """

    def __init__(self, layout: LatentLayout, condition: Condition, backbone: Backbone):
        super().__init__()
        self.layout, self.condition, self.backbone = layout, condition, backbone
        self.prefix = condition.embedding(backbone.width)
        self.embed = nn.Linear(layout.dim, backbone.width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(backbone.width))
        # Mask tokens are alike; rotary embeddings alone would not tell them apart.
        self.position_embedding = (
            IndexEmbedding(torch.arange(layout.length), layout.length, backbone.width)
            if backbone.positions == "rotary"
            else None
        )
        self.prefix_length = backbone.prefix_length(condition.length)
        self.transformer = Transformer(layout, backbone, self.prefix_length)
        no_position = torch.full((self.prefix_length,), layout.length)
        positions = torch.cat([no_position, torch.arange(layout.length)])
        self.register_buffer("positions", positions, persistent=False)

    def encode_condition(self, condition: Tensor) -> EncodedCondition:
        """Encode values of the condition, once for all passes over the same images."""
        padding_mask = self.condition.padding_mask(condition)
        return self.transformer.encode_condition(self.prefix(condition), padding_mask)

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
        positions = self.get_buffer("positions")
        tokens = torch.cat([encoded.prefix, inputs], dim=1)
        if self.position_embedding is not None:
            tokens = tokens + self.position_embedding(positions)
        features = self.transformer(
            tokens,
            positions,
            encoded.mask_padding(Full()),
            conditioning=encoded.conditioning,
            key_values=encoded.key_values,
        )
        return features[:, self.prefix_length :][selected].float()


class FlowHead(nn.Module):
    """Velocity of the latents of one position, modulated by its features and the time.

    Args:
        dim: numbers of a position.
        features: channels of its features.
        width: channels of the network.
        depth: residual layers.
    """

    def __init__(self, dim: int, features: int, width: int, depth: int):
        super().__init__()
        self.embed, self.condition = nn.Linear(dim, width), nn.Linear(features, width)
        self.time = TimeEmbedding(width)
        self.layers = nn.ModuleList(FlowLayer(width) for _ in range(depth))
        self.norm, self.last = AdaLN(width, "layer", EPSILON), nn.Linear(width, dim)
        nn.init.normal_(self.last.weight, std=0.02)
        nn.init.zeros_(self.last.bias)

    def forward(
        self, features: Float[Tensor, "m features"], x: Float[Tensor, "m dim"], times: Float[Tensor, " m"]
    ) -> Float[Tensor, "m dim"]:
        """Velocities in float32."""
        conditioning = rearrange(self.condition(features) + self.time(times), "m width -> m 1 width")
        tokens = rearrange(self.embed(x), "m width -> m 1 width")
        for layer in self.layers:
            tokens = layer(tokens, conditioning)
        return self.last(self.norm(tokens, conditioning))[:, 0].float()


class FlowLayer(nn.Module):
    """A residual layer of the head: a modulated norm, two linear layers and a gate."""

    def __init__(self, width: int):
        super().__init__()
        self.modulation = Modulation(width, 3, gates=1)
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)

    def forward(
        self, tokens: Float[Tensor, "m one=1 width"], conditioning: Float[Tensor, "m one=1 width"]
    ) -> Float[Tensor, "m one=1 width"]:
        gate, scale, shift = self.modulation(conditioning).unbind(dim=2)
        added = self.fc2(silu(self.fc1(modulate(tokens, scale, shift, "layer", EPSILON))))
        return tokens + gate * added
