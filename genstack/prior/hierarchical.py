"""Autoregressive priors over grids from coarse to fine (VQ-VAE-2, Razavi et al. 2019, arXiv:1906.00446)."""

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
from genstack.prior.autoregressive import Autoregressive, TransformerState
from genstack.prior.sequential import DecodingState, Sequential
from genstack.prior.symbols import Softmax, Symbols
from genstack.transformer.backbone import Backbone


class Hierarchical(Sequential):
    """One autoregressive prior per grid, each given all coarser codes.

    By the chain rule, nats add up and stay exact. Grids share no weights and may differ in size. The prior of
    a grid reads coarser codes in one pass and samples only its own.

    Args:
        layout: layout of the codes; set from the compressor.
        condition: condition of every grid's prior; set from the data.
        backbone: configuration of the transformer over the coarsest grid.
        finer: configuration of the transformer over each finer grid.
        symbols: how codes are read and predicted: Softmax; Factorized for large codebooks;
            Bits or MaskedBits for codebooks of 2^n values.
    """

    def __init__(
        self,
        layout: CodeLayout,
        condition: Condition,
        backbone: Backbone = Backbone(),
        finer: Backbone = Backbone(),
        symbols: Symbols = Softmax(),
    ):
        super().__init__()
        if len(layout.grids) == 1:
            raise UserError(
                "Hierarchical needs a compressor with several grids of codes, this one has one; use "
                "HierarchicalAutoencoder, or the prior Autoregressive"
            )
        self.layout, self.condition, self.backbone, self.finer = layout, condition, backbone, finer
        self.symbols, self.likelihood = symbols, symbols.likelihood(self.likelihood)
        parts = [replace(layout, grids=layout.grids[: number + 1]) for number in range(len(layout.grids))]
        #: Each prior covers all grids up to its own; only the part of its own grid is used.
        self.priors = nn.ModuleList(
            Autoregressive(part, condition, finer if number else backbone, symbols=symbols)
            for number, part in enumerate(parts)
        )
        self.ends = [part.length for part in parts]

    def logits(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, "b n K"]:
        """Logits of every code given the codes before it, by the prior of its grid; in float32."""
        each = [prior.logits(codes[:, :end], condition)[:, start:] for prior, start, end in self._grids()]
        return torch.cat(each, dim=1)

    def decoding_state(self, condition: Tensor) -> "GridState":
        return GridState(self._grids(), condition)

    @property
    def numbers(self) -> int:
        return self._grids()[0][0].distribution.numbers

    def _cross_entropy(
        self, codes: Int[Tensor, "b n"], inputs: Int[Tensor, "b n"], condition: Tensor
    ) -> Float[Tensor, "b n"]:
        each = [
            prior.distribution.nats(prior.logits(inputs[:, :end], condition)[:, start:], codes[:, start:end])
            for prior, start, end in self._grids()
        ]
        return torch.cat(each, dim=1)

    def _grids(self) -> Sequence[tuple[Autoregressive, int, int]]:
        """The prior of each grid, and the first and last index of the grid in the flat sequence."""
        priors = [cast(Autoregressive, prior) for prior in self.priors]
        return list(zip(priors, [0, *self.ends[:-1]], self.ends, strict=True))


class GridState(DecodingState):
    """Decode grid after grid; `grids` holds the prior of each, with its first and last index."""

    def __init__(self, grids: Sequence[tuple[Autoregressive, int, int]], condition: Tensor):
        self.starts, self.condition = {start: prior for prior, start, _ in grids}, condition

    def next_logits(self, codes: Int[Tensor, "n b"], index: int) -> Float[Tensor, "b K"]:
        if index in self.starts:
            self.state = TransformerState(self.starts[index], self.condition)
            self.distribution = self.state.distribution
            return self.state.start(rearrange(codes[:index], "n b -> b n"))
        return self.state.step(codes[index - 1])
