"""Absorbing diffusion (D3PM, Austin et al. 2021, arXiv:2107.03006; MDLM, Sahoo et al., arXiv:2406.07524)."""

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
from genstack.prior.masked_transformer import MaskedTransformer, lowest_k, stratified_uniforms
from genstack.prior.options import SamplingOptions
from genstack.prior.symbols import Softmax, Symbols
from genstack.transformer.backbone import Backbone


class Diffusion(CodePrior):
    """Mask codes at random times, and learn to restore them; the loss is the bound on the likelihood.

    Args:
        layout: layout of the codes; set from the compressor.
        condition: condition of the prior; set from the data.
        backbone: configuration of the transformer.
        steps: sampling steps, unless sampling sets its own; codes whose times fall into one step are sampled
            together, so more steps are more faithful and slower.
        masks: random masks per image to estimate `nats`; more are more precise, and slower.
        symbols: how codes are read and predicted: Softmax; Factorized for large codebooks;
            Bits or MaskedBits for codebooks of 2^n values.
    """

    likelihood = "upper bound (diffusion, continuous time)"
    context = "all"

    def __init__(
        self,
        layout: CodeLayout,
        condition: Condition,
        backbone: Backbone = Backbone(),
        steps: int = 64,
        masks: int = 8,
        symbols: Symbols = Softmax(),
    ):
        super().__init__()
        if min(steps, masks) < 1:
            raise UserError(f"steps and masks must be at least 1, got {steps} and {masks}")
        self.layout, self.condition, self.backbone = layout, condition, backbone
        self.steps, self.masks = steps, masks
        self.network = MaskedTransformer(layout, condition, backbone, symbols)
        self.symbols, self.likelihood = symbols, symbols.likelihood(self.likelihood)

    def loss(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, ""]:
        """The bound in nats per code, with the integral over time solved up to the number of masked codes."""
        if self.training:
            condition = self.condition.drop(condition)
        counts = (stratified_uniforms(len(codes), codes.device) * self.layout.length).long() + 1
        masked = lowest_k(torch.rand(codes.shape, device=codes.device), counts)
        return self.network.masked_nats(codes, masked, self.network.encode_condition(condition)).mean()

    def nats(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, " b"]:
        return self.network.nats_bound(codes, condition, self.masks)

    def sample_codes(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Int[Tensor, "b n"]:
        """Ancestral sampling: from time t to s, a masked code is revealed with probability (t - s) / t.

        Each code is then revealed at a uniform time of its own, which is drawn beforehand. Steps that reveal
        no code of any image need no pass through the network.
        """
        steps = options.steps or self.steps or self.layout.length
        distribution, length = self.network.distribution, self.layout.length
        noise = uniforms(seeds, (1 + distribution.numbers) * length).to(known.values.device)
        times = noise[:, :length]
        code_noise = rearrange(noise[:, length:], "b (n number) -> b n number", n=length)
        step_of_code = (times.double() * steps).long()
        codes, masked = known.values, ~known.mask
        encoded = self.network.encode_condition(guidance.values)
        for step in step_of_code[masked].unique().tolist():
            revealed = masked & (step_of_code == step)
            expanded = (guidance.expand(each) for each in (codes, masked, revealed))
            logits, guide = self.network(*expanded, encoded), guidance.at(options.progress(step, steps))
            sampled = distribution.sample(logits, guide, options, code_noise[revealed])
            codes = codes.masked_scatter(revealed, sampled)
            masked = masked & ~revealed
        return codes
