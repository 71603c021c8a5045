"""Residual quantization (SoundStream, arXiv:2107.03312, III.C; of images: RQ-VAE, arXiv:2203.01941)."""

from dataclasses import dataclass, field
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.compressor.bottleneck import Quantized, Quantizer
from genstack.compressor.quantizers.check import check
from genstack.compressor.quantizers.codebook import CodebookInit
from genstack.compressor.quantizers.estimator import GradientEstimator, StraightThrough
from genstack.compressor.quantizers.update import CodebookUpdate, GradientUpdate
from genstack.compressor.quantizers.vq import VectorQuantizer
from genstack.layout import CodeLayout


class Residual(Quantizer):
    """Replace each latent by a sum of rows, each the nearest to the remaining residual.

    A position has `depth` codes, from coarse to fine.

    Args:
        depth: number of rows in a sum.
        codebook_size: number of rows (codes) of each table.
        dim: dimensions of a row.
        update: update rule of the rows, GradientUpdate or EMAUpdate.
        commitment_weight: weight of the commitment loss, which pulls residuals to their rows.
        shared: use one table for all depths (RQ-VAE) instead of one per depth (SoundStream).
        dropout: share of training images that sum only a random number of the first rows (SoundStream's
            quantizer dropout), so that fewer codes also give an image.
        estimator: gradient through quantization, StraightThrough or RotationTrick.
        codebook_init: initialize rows with random residuals of the first training batch (latents), or with
            the means of its clusters (kmeans); null for random rows.
        dead_after: restart a row from a random residual once this many residuals per row have passed without
            choosing it; null for no restarts.
    """

    def __init__(
        self,
        depth: int = 4,
        codebook_size: int = 256,
        dim: int = 32,
        update: CodebookUpdate = GradientUpdate(),
        commitment_weight: float = 0.25,
        shared: bool = False,
        dropout: float = 0.0,
        estimator: GradientEstimator = StraightThrough(),
        codebook_init: CodebookInit | None = "latents",
        dead_after: float | None = 16.0,
    ):
        super().__init__()
        check("depth", depth, depth >= 1, "1 or more")
        check("dropout", dropout, 0 <= dropout <= 1, "0 to 1")
        self.depth, self.codebook_size, self.dim, self.update = depth, codebook_size, dim, update
        self.commitment_weight, self.shared, self.dropout = commitment_weight, shared, dropout
        self.estimator, self.codebook_init, self.dead_after = estimator, codebook_init, dead_after
        self.tables = nn.ModuleList(
            VectorQuantizer(
                codebook_size,
                dim,
                update,
                commitment_weight,
                normalize=False,
                codebook_init=codebook_init,
                dead_after=dead_after,
            )
            for _ in range(1 if shared else depth)
        )

    def forward(self, latents: Float[Tensor, "b {self.dim} h w"]) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            soft = rearrange(latents.float(), "b d h w -> b (h w) d")
            chosen = self.choose(soft, self.sample_depths(len(latents), latents.device))
            quantized = self.estimator(chosen.total, soft)
        return Quantized(
            rearrange(quantized, "b (h w) d -> b d h w", h=latents.shape[2]),
            {name: torch.stack(terms).mean() for name, terms in chosen.losses.items()},
            codes=rearrange(chosen.codes, "depth b n -> b (n depth)"),
        )

    def choose(self, soft: Float[Tensor, "b n {self.dim}"], depths: Int[Tensor, " b"]) -> "ResidualSum":
        """Choose rows depth by depth, nearest to the residual; images sum the first `depths` of them.

        Each batch initializes one table at most: latents that have just become rows leave residuals of 0.
        """
        chosen, residual, residuals = ResidualSum(torch.zeros_like(soft)), soft, []
        initialized = False
        for number in range(self.depth):
            table = self.table(number)
            residuals.append(residual.detach())
            initialized = initialized or table.initialize(residuals[-1])
            codes = table.choose(residuals[-1])
            hard = table.vectors(codes)
            summed = rearrange((number < depths).float(), "b -> b 1 1")
            chosen.add(codes, hard.detach() * summed, table.losses(hard * summed, residual * summed))
            residual = residual - hard.detach()
        for number in range(len(self.tables)):  # a shared table restarts its rows from all depths
            own = slice(number, None, len(self.tables))
            self.table(number).observe(torch.cat(residuals[own]), torch.cat(chosen.grids[own]))
        return chosen

    def sample_depths(self, count: int, device: torch.device) -> Int[Tensor, " {count}"]:
        """Sample how many depths each image sums: all, or fewer in training with dropout."""
        everything = torch.full((count,), self.depth, device=device)
        if not self.training or self.dropout == 0:
            return everything
        fewer = torch.randint(1, self.depth + 1, (count,), device=device)
        return torch.where(torch.rand(count, device=device) < self.dropout, fewer, everything)

    def lookup(self, codes: Int[Tensor, "b n"], layout: CodeLayout) -> Float[Tensor, "b {self.dim} h w"]:
        (grid,) = layout.split(codes)
        return rearrange(self.partial(grid), "b h w d -> b d h w")

    def partial(self, codes: Int[Tensor, "*shape depth"]) -> Float[Tensor, "*shape {self.dim}"]:
        """Sum the rows of the first depths, as many as there are codes; priors use it while sampling."""
        total = torch.zeros((*codes.shape[:-1], self.dim), device=codes.device)
        for number in range(codes.shape[-1]):
            total = total + self.table(number).vectors(codes[..., number])
        return total

    def table(self, number: int) -> VectorQuantizer:
        """Return the table of a depth."""
        return cast(VectorQuantizer, self.tables[number % len(self.tables)])

    def after_step(self, skipped: bool) -> None:
        for number in range(len(self.tables)):
            self.table(number).after_step(skipped)


@dataclass
class ResidualSum:
    """Sum of the rows chosen so far.

    Args:
        total: sum of the rows, without a gradient.
        grids: codes of each depth.
        losses: losses of each depth, by name.
    """

    total: Float[Tensor, "b n d"]
    grids: list[Int[Tensor, "b n"]] = field(default_factory=list)
    losses: dict[str, list[Float[Tensor, ""]]] = field(default_factory=dict)

    def add(
        self, codes: Int[Tensor, "b n"], rows: Float[Tensor, "b n d"], losses: dict[str, Float[Tensor, ""]]
    ) -> None:
        """Add one depth."""
        self.total = self.total + rows
        self.grids.append(codes)
        for name, loss in losses.items():
            self.losses.setdefault(name, []).append(loss)

    @property
    def codes(self) -> Int[Tensor, "depth b n"]:
        """Codes of all depths."""
        return torch.stack(self.grids)
