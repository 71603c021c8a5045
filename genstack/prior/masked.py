"""MaskGIT: masked codes predicted in a few steps (Chang et al. 2022, arXiv:2202.04200)."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.code_prior import CodePrior
from genstack.prior.guidance import Guidance
from genstack.prior.known import Known
from genstack.prior.logits import uniforms
from genstack.prior.mask_schedule import MaskSchedule
from genstack.prior.masked_transformer import MaskedTransformer, lowest_k
from genstack.prior.options import SamplingOptions
from genstack.prior.order import Confidence, Order
from genstack.prior.symbols import Softmax, Symbols
from genstack.transformer.backbone import Backbone


class Masked(CodePrior):
    """Predict masked codes in parallel, by a transformer; sampling starts with all codes masked.

    Args:
        layout: layout of the codes; set from the compressor.
        condition: condition of the prior; set from the data.
        backbone: configuration of the transformer.
        schedule: mask ratio in training and sampling, and sampling steps.
        order: which sampled codes are kept in each step: Confidence (most confident first), Halton (spread
            over the image), Random or Raster.
        smoothing: label smoothing of the training loss; 0.1 in MaskGIT, 0 for the best `nats`.
        masks: random masks per image to estimate `nats`; more are more precise, and slower.
        predict_mask: also predict a probability of the mask (Halton-MaskGIT). If the mask is sampled at a
            position and kept, later steps see a mask there, and the result has the last code of the codebook.
        symbols: how codes are read and predicted: Softmax; Factorized for large codebooks;
            Bits, MaskedBits or BitTokens for codebooks of 2^n values.
        joint: use one token per position for all its symbols, which are masked separately (MaskBit); needs a
            compressor with several symbols per position.
    """

    likelihood = "upper bound (order-agnostic)"
    context = "all"
    temperature_schedules = ("constant", "linear")

    def __init__(
        self,
        layout: CodeLayout,
        condition: Condition,
        backbone: Backbone = Backbone(),
        schedule: MaskSchedule = MaskSchedule(),
        order: Order = Confidence(),
        smoothing: float = 0.0,
        masks: int = 8,
        predict_mask: bool = False,
        symbols: Symbols = Softmax(),
        joint: bool = False,
    ):
        super().__init__()
        if not 0 <= smoothing < 1:
            raise UserError(f"smoothing must be at least 0 and below 1, got {smoothing}")
        if masks < 1:
            raise UserError(f"masks must be at least 1, got {masks}")
        self.layout, self.condition, self.backbone = layout, condition, backbone
        self.schedule, self.order, self.smoothing = schedule, order, smoothing
        self.steps, self.masks = schedule.steps, masks
        if joint and layout.depth == 1:
            raise UserError(
                "joint needs a compressor with several symbols per position, this one has one; use `joint: "
                "false`, or a quantizer with a greater depth"
            )
        self.predict_mask, self.joint = predict_mask, joint
        self.network = MaskedTransformer(layout, condition, backbone, symbols, predict_mask, joint)
        self.symbols, self.likelihood = symbols, symbols.likelihood(self.likelihood)

    def loss(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, ""]:
        """Mean cross entropy of the masked codes, at the mask ratio of a random time."""
        if self.training:
            condition = self.condition.drop(condition)
        counts = self.schedule.training_counts(len(codes), self.layout.length, codes.device)
        masked = lowest_k(torch.rand(codes.shape, device=codes.device), counts)
        logits = self.network(codes, masked, masked, self.network.encode_condition(condition))
        return self.network.distribution.nats(logits, codes[masked], self.smoothing).mean()

    def nats(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, " b"]:
        return self.network.nats_bound(codes, condition, self.masks)

    def sample_codes(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Int[Tensor, "b n"]:
        """Sample all masked codes in each step; keep as many as the schedule says, chosen by the order."""
        length, device = self.layout.length, known.values.device
        steps = min(options.steps or self.steps or length, length)
        distribution = self.network.distribution
        noise = uniforms(seeds, steps * (distribution.numbers + 1) * length).to(device)
        codes, masked = known.values, ~known.mask
        encoded = self.network.encode_condition(guidance.values)
        total = masked.sum(dim=1)
        all_noise = rearrange(noise, "b (steps n) -> steps b n", steps=steps)
        for step, step_noise in enumerate(all_noise):
            if not masked.any():
                break
            code_noise = step_noise[:, :-length]
            order_noise = (all_noise[0] if self.order.first_noise else step_noise)[:, -length:]
            code_noise = rearrange(code_noise, "b (n number) -> b n number", n=length)
            expanded = (guidance.expand(each) for each in (codes, masked, masked))
            logits, guide = self.network(*expanded, encoded), guidance.at(options.progress(step, steps))
            done = (step + 1) / steps
            cooled, normalized = options.at_progress(done), self.order.score != "logit"
            sampled = distribution.sample(logits, guide, cooled, code_noise[masked])
            score = distribution.score(logits, guide, sampled, normalized)

            left = self.schedule.remaining(done, total, masked.sum(dim=1))
            confidence = torch.zeros(masked.shape, device=device).masked_scatter(masked, score)
            priority = self.order.priority(self.layout, confidence, order_noise, 1 - done)
            kept = lowest_k((-priority).masked_fill(~masked, torch.inf), masked.sum(dim=1) - left)
            codes = torch.where(kept, codes.masked_scatter(masked, sampled), codes)
            masked = masked & ~kept
        return codes.clamp(max=self.layout.codebook_size - 1)
