"""Absorbing diffusion (D3PM, Austin et al. 2021, arXiv:2107.03006; MDLM, Sahoo et al., arXiv:2406.07524)."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.guidance import Guidance
from genstack.prior.masked_transformer import MaskedTransformer, lowest, spread
from genstack.prior.options import SamplingOptions
from genstack.prior.prior import Known, Prior
from genstack.prior.sampling import draw, uniforms
from genstack.transformer.backbone import Backbone


class Diffusion(Prior):
    """Codes vanish one by one at random times, and a transformer learns the way back; the bound is the loss.

    Args:
        layout: where the codes lie; set from the compressor.
        condition: what steers the prior; set from the data.
        backbone: the plan of the transformer.
        steps: parts of the way back, where sampling asks for no number; codes whose times lie in one part are
            drawn at once, so more steps are more faithful and slower.
        masks: ways to hide codes that are tried to measure an image's `nats`; more are surer, and slower.
    """

    likelihood = "upper bound (diffusion, continuous time)"
    sees = "all"

    def __init__(
        self,
        layout: CodeLayout,
        condition: Condition,
        backbone: Backbone = Backbone(),
        steps: int = 64,
        masks: int = 8,
    ):
        super().__init__()
        if min(steps, masks) < 1:
            raise UserError(f"steps {steps} and masks {masks} must both be at least 1")
        self.layout, self.condition, self.backbone = layout, condition, backbone
        self.steps, self.masks = steps, masks
        self.filler = MaskedTransformer(layout, condition, backbone)

    def loss(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, ""]:
        """The bound in nats per code, its integral over time done but for the number of hidden codes."""
        if self.training:
            condition = self.condition.drop(condition)
        counts = (spread(len(codes), codes.device) * self.layout.length).long() + 1
        hidden = lowest(torch.rand(codes.shape, device=codes.device), counts)
        return self.filler.surprise(codes, hidden, self.filler.encode_condition(condition)).mean()

    def nats(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, " b"]:
        return self.filler.bound(codes, condition, self.masks)

    def draw(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Int[Tensor, "b n"]:
        """Ancestral sampling: from time t to s a hidden code appears with probability (t - s) / t.

        Each code then appears at a uniform time of its own, which can be drawn beforehand; steps in which no
        code of any image appears need no pass through the network.
        """
        steps = options.steps or self.steps or self.layout.length
        numbers = uniforms(seeds, 2 * self.layout.length).to(known.codes.device)
        times, chances = rearrange(numbers, "b (two n) -> two b n", two=2)
        turns = (times.double() * steps).long()
        codes, hidden = known.codes, ~known.mask
        encoded = self.filler.encode_condition(guidance.values)
        for step in turns[hidden].unique().tolist():
            now = hidden & (turns == step)
            logits = self.filler(guidance.rows(codes), guidance.rows(hidden), encoded, guidance.rows(now))
            logits = guidance.steer(logits, step / max(1, steps - 1))
            codes = codes.masked_scatter(now, draw(logits, options, chances[now]))
            hidden = hidden & ~now
        return codes
