"""A prior for each grid, coarse to fine, each reading the coarser ones (VQ-VAE-2, arXiv:1906.00446)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.autoregressive import Autoregressive, Decoding
from genstack.prior.exact import Exact
from genstack.prior.guidance import Guidance
from genstack.prior.options import SamplingOptions
from genstack.prior.prior import Known
from genstack.prior.sampling import draw, uniforms
from genstack.transformer.backbone import Backbone


class Hierarchical(Exact):
    """One autoregressive prior for each grid: the coarsest by itself, finer ones given all coarser codes.

    By the chain rule the likelihoods multiply: nats add up, and stay exact. Grids do not share weights, and
    may differ in size. A finer grid's prior reads the coarser codes in one pass, and draws only its own.

    Args:
        layout: where the codes lie; set from the compressor.
        condition: what steers the prior; set from the data. Every grid's prior reads it.
        backbone: the plan of the transformer over the coarsest grid.
        finer: the plan of the transformer over each finer grid.
    """

    def __init__(
        self,
        layout: CodeLayout,
        condition: Condition,
        backbone: Backbone = Backbone(),
        finer: Backbone = Backbone(),
    ):
        super().__init__()
        if len(layout.grids) == 1:
            raise UserError(
                "Hierarchical needs a compressor with several grids of codes; this one has one; train one "
                "with --config configs/compressor/vqvae2.yaml, or use the prior Autoregressive"
            )
        self.layout, self.condition, self.backbone, self.finer = layout, condition, backbone, finer
        parts = [replace(layout, grids=layout.grids[: number + 1]) for number in range(len(layout.grids))]
        #: The prior of a grid is one over all grids up to it, of which only the last grid's part is used.
        self.priors = nn.ModuleList(
            Autoregressive(part, condition, finer if number else backbone)
            for number, part in enumerate(parts)
        )
        self.ends = [part.length for part in parts]

    def logits(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, "b n K"]:
        """Logits of every code, each from the codes before it, by the prior of its grid; in float32."""
        each = [prior.logits(codes[:, :end], condition)[:, start:] for prior, start, end in self._grids()]
        return torch.cat(each, dim=1)

    def draw(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Int[Tensor, "b n"]:
        """One code after the other; a known code is seen by those after it in the flat sequence alone."""
        length = self.layout.length
        numbers = rearrange(uniforms(seeds, length), "b n -> n b").to(known.codes.device).contiguous()
        codes = torch.empty(length, len(seeds), dtype=torch.int64, device=known.codes.device)
        for prior, start, end in self._grids():
            decoding = Decoding(prior, guidance.values)
            coarser = guidance.rows(rearrange(codes[:start], "n b -> b n"))
            for index in range(start, end):
                logits = (
                    decoding.start(coarser)
                    if index == start
                    else decoding.step(guidance.rows(codes[index - 1]))
                )
                logits = guidance.steer(logits, index / max(1, length - 1))
                drawn = draw(logits, options, numbers[index])
                codes[index] = torch.where(known.mask[:, index], known.codes[:, index], drawn)
        return rearrange(codes, "n b -> b n").contiguous()

    def _grids(self) -> Sequence[tuple[Autoregressive, int, int]]:
        """The prior of each grid, and where the grid begins and ends in the flat sequence."""
        priors = [cast(Autoregressive, prior) for prior in self.priors]
        return list(zip(priors, [0, *self.ends[:-1]], self.ends, strict=True))
