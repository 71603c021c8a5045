"""Product quantization: a table for each group (arXiv:1803.03382; vq-wav2vec, arXiv:1910.05453)."""

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
from genstack.errors import UserError
from genstack.layout import CodeLayout


class Grouped(Quantizer):
    """The channels of a latent are cut into groups, and each group becomes the nearest row of its own table.

    A position has one code for each group; n tables of K rows stand for K^n vectors.

    Args:
        groups: number of groups, and of codes per position.
        codebook_size: number of rows of each table, which is the number of values of a code.
        dim: channels of all groups together.
        learning: how rows learn: ByGradient, or ByAverage of the latents that chose them.
        commitment_weight: weight of the term that pulls the encoder towards the chosen rows.
        normalize: give each group and each row unit length, so that directions are compared and not sizes.
        estimator: how the gradient passes the choice to the encoder: StraightThrough or RotationTrick.
        seeding: rows become randomly chosen latents of the first batch in training (latents), or the means
            of its clusters (kmeans); null leaves them random.
        dead_after: a row that was not chosen once while this many latents per row passed starts again from a
            random latent; null never restarts one.
    """

    def __init__(
        self,
        groups: int = 2,
        codebook_size: int = 256,
        dim: int = 16,
        learning: Learning = ByGradient(),
        commitment_weight: float = 0.25,
        normalize: bool = True,
        estimator: Estimator = StraightThrough(),
        seeding: Seeding | None = "latents",
        dead_after: float | None = 64.0,
    ):
        super().__init__()
        check("groups", groups, groups >= 1, "1 or more")
        if dim % groups:
            raise UserError(f"dim {dim} cannot be cut into {groups} groups; use a multiple of {groups}")
        self.groups, self.codebook_size, self.dim, self.learning = groups, codebook_size, dim, learning
        self.depth = groups
        self.commitment_weight, self.normalize, self.estimator = commitment_weight, normalize, estimator
        self.seeding, self.dead_after = seeding, dead_after
        self.tables = nn.ModuleList(
            VectorQuantizer(
                codebook_size,
                dim // groups,
                learning,
                commitment_weight,
                normalize,
                estimator,
                seeding,
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
        """The quantizer of each group."""
        return cast(list[VectorQuantizer], list(self.tables))
