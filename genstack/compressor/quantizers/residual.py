"""Residual quantization (SoundStream, arXiv:2107.03312, III.C; of images: RQ-VAE, arXiv:2203.01941)."""

from dataclasses import dataclass, field
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.compressor.bottleneck import Quantized, Quantizer
from genstack.compressor.quantizers.check import check
from genstack.compressor.quantizers.codebook import Seeding
from genstack.compressor.quantizers.estimator import Estimator, StraightThrough
from genstack.compressor.quantizers.learning import ByGradient, Learning
from genstack.compressor.quantizers.vq import VectorQuantizer
from genstack.layout import CodeLayout


class Residual(Quantizer):
    """Each latent becomes a sum of rows: every row is the nearest to what the rows before it left over.

    A position has `depth` codes, from coarse to fine.

    Args:
        depth: rows that are summed.
        codebook_size: number of rows of each table, which is the number of values of a code.
        dim: numbers in a row.
        learning: how rows learn: ByGradient, or ByAverage of the remainders that chose them.
        commitment_weight: weight of the term that pulls the encoder towards the sums of rows.
        shared: use one table at all depths (as RQ-VAE does) instead of one for each (as SoundStream does).
        dropout: share of training images of which only a random number of rows are summed, the first ones, so
            that they alone make a picture too (SoundStream's quantizer dropout).
        estimator: how the gradient passes the choice to the encoder: StraightThrough or RotationTrick.
        seeding: rows become randomly chosen remainders of the first batch in training (latents), or the
            means of its clusters (kmeans); null leaves them random.
        dead_after: a row that was not chosen once while this many remainders per row passed starts again from
            a random one; null never restarts one.
    """

    def __init__(
        self,
        depth: int = 4,
        codebook_size: int = 256,
        dim: int = 32,
        learning: Learning = ByGradient(),
        commitment_weight: float = 0.25,
        shared: bool = False,
        dropout: float = 0.0,
        estimator: Estimator = StraightThrough(),
        seeding: Seeding | None = "latents",
        dead_after: float | None = 64.0,
    ):
        super().__init__()
        check("depth", depth, depth >= 1, "1 or more")
        check("dropout", dropout, 0 <= dropout <= 1, "0 to 1")
        self.depth, self.codebook_size, self.dim, self.learning = depth, codebook_size, dim, learning
        self.commitment_weight, self.shared, self.dropout = commitment_weight, shared, dropout
        self.estimator, self.seeding, self.dead_after = estimator, seeding, dead_after
        self.tables = nn.ModuleList(
            VectorQuantizer(
                codebook_size,
                dim,
                learning,
                commitment_weight,
                normalize=False,
                seeding=seeding,
                dead_after=dead_after,
            )
            for _ in range(1 if shared else depth)
        )

    def forward(self, latents: Float[Tensor, "b {self.dim} h w"]) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            soft = rearrange(latents.float(), "b d h w -> b (h w) d")
            chosen = self.choose(soft, self.kept(len(latents), latents.device))
            quantized = self.estimator(chosen.total, soft)
        return Quantized(
            rearrange(quantized, "b (h w) d -> b d h w", h=latents.shape[2]),
            {name: torch.stack(terms).mean() for name, terms in chosen.losses.items()},
            codes=rearrange(chosen.codes, "depth b n -> b (n depth)"),
        )

    def choose(self, soft: Float[Tensor, "b n {self.dim}"], kept: Int[Tensor, " b"]) -> "Chosen":
        """Depth by depth the row nearest to the remainder; images sum the first `kept` of them."""
        chosen, remainder = Chosen(torch.zeros_like(soft)), soft
        for number in range(self.depth):
            table = self.table(number)
            codes = table.choose(remainder.detach())
            hard = table.vectors(codes)
            summed = rearrange((number < kept).float(), "b -> b 1 1")
            chosen.add(codes, hard.detach() * summed, table.losses(hard * summed, remainder * summed))
            remainder = remainder - hard.detach()
        return chosen

    def kept(self, count: int, device: torch.device) -> Int[Tensor, " {count}"]:
        """Number of depths that each image sums: all of them, or in training sometimes fewer."""
        everything = torch.full((count,), self.depth, device=device)
        if not self.training or self.dropout == 0:
            return everything
        fewer = torch.randint(1, self.depth + 1, (count,), device=device)
        return torch.where(torch.rand(count, device=device) < self.dropout, fewer, everything)

    def lookup(self, codes: Int[Tensor, "b n"], layout: CodeLayout) -> Float[Tensor, "b {self.dim} h w"]:
        (grid,) = layout.split(codes)
        return rearrange(self.partial(grid), "b h w d -> b d h w")

    def partial(self, codes: Int[Tensor, "*shape depth"]) -> Float[Tensor, "*shape {self.dim}"]:
        """The sum of the rows of the first depths, as many as there are codes: what a prior knows so far."""
        total = torch.zeros((*codes.shape[:-1], self.dim), device=codes.device)
        for number in range(codes.shape[-1]):
            total = total + self.table(number).vectors(codes[..., number])
        return total

    def table(self, number: int) -> VectorQuantizer:
        """The table of a depth."""
        return cast(VectorQuantizer, self.tables[number % len(self.tables)])

    def after_step(self, skipped: bool) -> None:
        for number in range(len(self.tables)):
            self.table(number).after_step(skipped)


@dataclass
class Chosen:
    """Rows chosen so far.

    Args:
        total: their sum, without a gradient.
        grids: the codes of each depth.
        losses: the terms of each depth by name.
    """

    total: Float[Tensor, "b n d"]
    grids: list[Int[Tensor, "b n"]] = field(default_factory=list)
    losses: dict[str, list[Float[Tensor, ""]]] = field(default_factory=dict)

    def add(
        self, codes: Int[Tensor, "b n"], rows: Float[Tensor, "b n d"], losses: dict[str, Float[Tensor, ""]]
    ) -> None:
        """Take in one more depth."""
        self.total = self.total + rows
        self.grids.append(codes)
        for name, loss in losses.items():
            self.losses.setdefault(name, []).append(loss)

    @property
    def codes(self) -> Int[Tensor, "depth b n"]:
        """All codes so far."""
        return torch.stack(self.grids)
