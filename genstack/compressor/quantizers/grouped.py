"""Product quantization: a table for each group (arXiv:1803.03382; vq-wav2vec, arXiv:1910.05453)."""

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
from genstack.errors import UserError
from genstack.layout import CodeLayout


class Grouped(Quantizer):
    """Split the channels of a latent into groups, and quantize each with its own table.

    A position has one code per group; n tables of K rows represent K^n vectors.

    Args:
        groups: number of groups, and of codes per position.
        codebook_size: number of rows (codes) of each table.
        dim: channels of all groups together.
        update: update rule of the rows, GradientUpdate or EMAUpdate.
        commitment_weight: weight of the commitment loss, which pulls latents to their rows.
        normalize: compare groups and rows at unit length, by direction only.
        estimator: gradient through quantization, StraightThrough or RotationTrick.
        codebook_init: initialize rows with random latents of the first training batch (latents), or with
            the means of its clusters (kmeans); null for random rows.
        dead_after: restart a row from a random latent once this many latents per row have passed without
            choosing it; null for no restarts.
    """

    def __init__(
        self,
        groups: int = 2,
        codebook_size: int = 256,
        dim: int = 16,
        update: CodebookUpdate = GradientUpdate(),
        commitment_weight: float = 0.25,
        normalize: bool = True,
        estimator: GradientEstimator = StraightThrough(),
        codebook_init: CodebookInit | None = "latents",
        dead_after: float | None = 16.0,
    ):
        super().__init__()
        check("groups", groups, groups >= 1, "1 or more")
        if dim % groups:
            raise UserError(f"dim {dim} cannot be split into {groups} groups; use a multiple of {groups}")
        self.groups, self.codebook_size, self.dim, self.update = groups, codebook_size, dim, update
        self.depth = groups
        self.commitment_weight, self.normalize, self.estimator = commitment_weight, normalize, estimator
        self.codebook_init, self.dead_after = codebook_init, dead_after
        self.tables = nn.ModuleList(
            VectorQuantizer(
                codebook_size,
                dim // groups,
                update,
                commitment_weight,
                normalize,
                estimator,
                codebook_init,
                dead_after,
            )
            for _ in range(groups)
        )

    def forward(self, latents: Float[Tensor, "b {self.dim} h w"]) -> Quantized:
        parts = rearrange(latents, "b (group d) h w -> group b d h w", group=self.groups)
        quantized = [table(part) for table, part in zip(self.quantizers, parts, strict=True)]
        losses = {
            name: torch.stack([part.losses[name] for part in quantized]).mean()
            for name in quantized[0].losses
        }
        codes = rearrange([part.codes for part in quantized], "group b n -> b (n group)")
        return Quantized(torch.cat([part.latents for part in quantized], dim=1), losses, codes=codes)

    def lookup(self, codes: Int[Tensor, "b n"], layout: CodeLayout) -> Float[Tensor, "b {self.dim} h w"]:
        (grid,) = layout.split(codes)
        vectors = [table.vectors(grid[..., number]) for number, table in enumerate(self.quantizers)]
        return rearrange(vectors, "group b h w d -> b (group d) h w")

    def after_step(self, skipped: bool) -> None:
        for table in self.quantizers:
            table.after_step(skipped)

    @property
    def quantizers(self) -> list[VectorQuantizer]:
        """Quantizers of the groups."""
        return cast(list[VectorQuantizer], list(self.tables))
