"""SimVQ: a frozen codebook behind one learned linear layer (Zhu et al. 2024, arXiv:2411.02038, section 4)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.compressor.bottleneck import Quantized, Quantizer
from genstack.compressor.quantizers.check import check
from genstack.compressor.quantizers.estimator import Estimator, StraightThrough
from genstack.compressor.quantizers.nearest import nearest
from genstack.layout import CodeLayout


class SimVQ(Quantizer):
    """Each latent becomes the nearest row of a random table, seen through a linear layer.

    The table never changes and the layer moves all of its rows at once, so rows that nothing chooses follow
    those that are chosen. Made for large codebooks of many dimensions.

    Args:
        codebook_size: number of rows, which is the number of values of a code.
        dim: numbers in a row.
        codebook_weight: weight of the term that pulls chosen rows towards the latents.
        commitment_weight: weight of the term that pulls the encoder towards the chosen rows.
        estimator: how the gradient passes the choice to the encoder: StraightThrough or RotationTrick.
    """

    table: Float[Tensor, "{self.codebook_size} {self.dim}"]

    def __init__(
        self,
        codebook_size: int = 1024,
        dim: int = 32,
        codebook_weight: float = 1.0,
        commitment_weight: float = 0.25,
        estimator: Estimator = StraightThrough(),
    ):
        super().__init__()
        check("codebook_size", codebook_size, codebook_size >= 1, "1 or more")
        check("dim", dim, dim >= 1, "1 or more")
        check("codebook_weight", codebook_weight, codebook_weight >= 0, "0 or more")
        check("commitment_weight", commitment_weight, commitment_weight >= 0, "0 or more")
        self.codebook_size, self.dim, self.estimator = codebook_size, dim, estimator
        self.codebook_weight, self.commitment_weight = codebook_weight, commitment_weight
        self.register_buffer("table", torch.randn(codebook_size, dim) * dim**-0.5)
        self.linear = nn.Linear(dim, dim)

    @property
    def rows(self) -> Float[Tensor, "{self.codebook_size} {self.dim}"]:
        """What the table looks like through the layer."""
        return F.linear(self.table.float(), self.linear.weight.float(), self.linear.bias.float())

    def forward(self, latents: Float[Tensor, "b {self.dim} h w"]) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            soft = rearrange(latents.float(), "b d h w -> b (h w) d")
            rows = self.rows
            chosen = nearest(rearrange(soft.detach(), "b n d -> (b n) d"), rows.detach())
            codes = rearrange(chosen, "(b n) -> b n", b=len(latents))
            hard = F.embedding(codes, rows)
            losses = {
                "codebook": self.codebook_weight * F.mse_loss(hard, soft.detach()),
                "commitment": self.commitment_weight * F.mse_loss(soft, hard.detach()),
            }
            quantized = rearrange(self.estimator(hard, soft), "b (h w) d -> b d h w", h=latents.shape[2])
        return Quantized(quantized, losses, codes=codes)

    def lookup(self, codes: Int[Tensor, "b n"], layout: CodeLayout) -> Float[Tensor, "b {self.dim} h w"]:
        (grid,) = layout.split(codes)
        with torch.autocast(codes.device.type, enabled=False):
            return rearrange(F.embedding(grid, self.rows), "b h w 1 d -> b d h w")
