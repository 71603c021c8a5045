"""Hidden codes filled in over a few steps (MaskGIT, Chang et al. 2022, arXiv:2202.04200)."""

import math
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.guidance import Guidance
from genstack.prior.masked_transformer import MaskedTransformer, lowest, spread
from genstack.prior.options import SamplingOptions
from genstack.prior.order import Confidence, Order
from genstack.prior.prior import Known, Prior
from genstack.prior.sampling import draw, uniforms
from genstack.transformer.backbone import Backbone

Schedule = Literal["cosine", "arccos", "linear", "square", "cubic", "root"]


class Masked(Prior):
    """A transformer that fills in hidden codes, many in one step; in sampling all are hidden at first.

    Args:
        layout: where the codes lie; set from the compressor.
        condition: what steers the prior; set from the data.
        backbone: the plan of the transformer.
        schedule: share of codes that is hidden after a share r of the way, in training and sampling: cosine,
            cos(pi r / 2); arccos, 2 arccos(r) / pi; linear, 1 - r; square, 1 - r^2; cubic, 1 - r^3; root,
            1 - sqrt(r). All but linear and root draw few codes at first, when there is least to go by.
        order: which of the codes drawn in a step are kept: Confidence (the surest), Halton (spread over the
            image), Random or Raster.
        smoothing: label smoothing of the training loss, the share of the target that all codes get alike; 0.1
            in MaskGIT, 0 for the best `nats`.
        steps: passes through the network for one image, where sampling asks for no number.
        masks: ways to hide codes that are tried to measure an image's `nats`; more are surer, and slower.
    """

    likelihood = "upper bound (order-agnostic)"
    sees = "all"

    def __init__(
        self,
        layout: CodeLayout,
        condition: Condition,
        backbone: Backbone = Backbone(),
        schedule: Schedule = "cosine",
        order: Order = Confidence(),
        smoothing: float = 0.0,
        steps: int = 8,
        masks: int = 8,
    ):
        super().__init__()
        if not 0 <= smoothing < 1:
            raise UserError(f"smoothing {smoothing} is out of range; it must be at least 0 and below 1")
        if min(steps, masks) < 1:
            raise UserError(f"steps {steps} and masks {masks} must both be at least 1")
        self.layout, self.condition, self.backbone = layout, condition, backbone
        self.schedule, self.order, self.smoothing = schedule, order, smoothing
        self.steps, self.masks = steps, masks
        self.filler = MaskedTransformer(layout, condition, backbone)

    def loss(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, ""]:
        """Mean cross entropy of the hidden codes, as many as the schedule says at a random time."""
        if self.training:
            condition = self.condition.drop(condition)
        share = hidden_share(self.schedule, spread(len(codes), codes.device))
        counts = (share * self.layout.length).ceil().long().clamp(1, self.layout.length)
        hidden = lowest(torch.rand(codes.shape, device=codes.device), counts)
        logits = self.filler(codes, hidden, self.filler.encode_condition(condition), hidden)
        return cross_entropy(logits, codes[hidden], label_smoothing=self.smoothing)

    def nats(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, " b"]:
        return self.filler.bound(codes, condition, self.masks)

    def draw(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Int[Tensor, "b n"]:
        """All hidden codes are drawn in each step; the order says which to keep, the schedule how many."""
        length, device = self.layout.length, known.codes.device
        steps = min(options.steps or self.steps or length, length)
        numbers = uniforms(seeds, steps * 2 * length).to(device)
        codes, hidden = known.codes, ~known.mask
        encoded = self.filler.encode_condition(guidance.values)
        wanted = hidden.sum(dim=1)
        for step, (chances, noise) in enumerate(
            rearrange(numbers, "b (steps two n) -> steps two b n", two=2, n=length)
        ):
            if not hidden.any():
                break
            logits = self.filler(guidance.rows(codes), guidance.rows(hidden), encoded, guidance.rows(hidden))
            logits = guidance.steer(logits, step / max(1, steps - 1))
            drawn = draw(logits, options, chances[hidden])
            sure = logits.log_softmax(dim=-1).gather(1, drawn[:, None])[:, 0]

            gone = (step + 1) / steps
            share = float(hidden_share(self.schedule, torch.tensor(gone, dtype=torch.float64)))
            left = torch.minimum((share * wanted).floor().long(), hidden.sum(dim=1) - 1).clamp(min=0)
            confidence = torch.zeros(hidden.shape, device=device).masked_scatter(hidden, sure)
            urgency = self.order.urgency(self.layout, confidence, noise, 1 - gone)
            kept = lowest((-urgency).masked_fill(~hidden, torch.inf), hidden.sum(dim=1) - left)
            codes = torch.where(kept, codes.masked_scatter(hidden, drawn), codes)
            hidden = hidden & ~kept
        return codes


def hidden_share(schedule: Schedule, gone: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """The share of codes that is hidden after a share of the way: from 1 at 0 to 0 at 1."""
    if schedule == "cosine":
        return (gone * (math.pi / 2)).cos().clamp(0, 1)
    if schedule == "arccos":
        return gone.arccos() * (2 / math.pi)
    return 1 - gone ** {"linear": 1, "square": 2, "cubic": 3, "root": 0.5}[schedule]
