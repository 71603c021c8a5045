"""SimVQ: a frozen codebook behind one learned linear layer (Zhu et al. 2024, arXiv:2411.02038, section 4)."""

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genstack.compressor.bottleneck import Quantized, Quantizer
from genstack.compressor.quantizers.check import check
from genstack.compressor.quantizers.dead_codes import DeadCodeTracker
from genstack.compressor.quantizers.estimator import GradientEstimator, StraightThrough
from genstack.compressor.quantizers.kmeans import random_latents
from genstack.compressor.quantizers.nearest import nearest
from genstack.layout import CodeLayout

#: Minimum variance of the latents in any direction, as a share of the largest.
MIN_VARIANCE = 1e-3


class SimVQ(Quantizer):
    """Replace each latent by the nearest row of a frozen random table behind a linear layer.

    The layer moves all rows at once, so unused rows follow those in use. Suits large codebooks of many
    dimensions. By default, rows and layer are initialized from latents, and dead rows restart;
    `codebook_init: null` and `dead_after: null` are the paper's.

    Args:
        codebook_size: number of rows (codes).
        dim: dimensions of a row.
        codebook_weight: weight of the codebook loss, which pulls chosen rows to their latents.
        commitment_weight: weight of the commitment loss, which pulls latents to their rows.
        estimator: gradient through quantization, StraightThrough or RotationTrick.
        codebook_init: latents: initialize the layer with mean and covariance of the first training batch, and
            the rows with random latents from it; null: random table and layer.
        dead_after: restart a row from a random latent once this many latents per row have passed without
            choosing it; null for no restarts.
    """

    table: Float[Tensor, "{self.codebook_size} {self.dim}"]
    initialized: Bool[Tensor, ""]

    def __init__(
        self,
        codebook_size: int = 1024,
        dim: int = 32,
        codebook_weight: float = 1.0,
        commitment_weight: float = 0.25,
        estimator: GradientEstimator = StraightThrough(),
        codebook_init: Literal["latents"] | None = "latents",
        dead_after: float | None = 16.0,
    ):
        super().__init__()
        check("codebook_size", codebook_size, codebook_size >= 1, "1 or more")
        check("dim", dim, dim >= 1, "1 or more")
        check("codebook_weight", codebook_weight, codebook_weight >= 0, "0 or more")
        check("commitment_weight", commitment_weight, commitment_weight >= 0, "0 or more")
        check("dead_after", dead_after, dead_after is None or dead_after > 0, "more than 0, or null")
        self.codebook_init, self.dead_after = codebook_init, dead_after
        self.codebook_size, self.dim, self.estimator = codebook_size, dim, estimator
        self.codebook_weight, self.commitment_weight = codebook_weight, commitment_weight
        self.register_buffer("table", torch.randn(codebook_size, dim) * dim**-0.5)
        self.register_buffer("initialized", torch.tensor(False))
        self.linear = nn.Linear(dim, dim)
        self.dead_codes = DeadCodeTracker(codebook_size, dead_after)

    @property
    def rows(self) -> Float[Tensor, "{self.codebook_size} {self.dim}"]:
        """Rows after the linear layer."""
        return F.linear(self.table.float(), self.linear.weight.float(), self.linear.bias.float())

    def forward(self, latents: Float[Tensor, "b {self.dim} h w"]) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            soft = rearrange(latents.float(), "b d h w -> b (h w) d")
            flat = rearrange(soft.detach(), "b n d -> (b n) d")
            if self.training:
                self.initialize(flat)
            rows = self.rows
            chosen = nearest(flat, rows.detach())
            if self.training:
                self.dead_codes.observe(flat, chosen)
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

    def after_step(self, skipped: bool) -> None:
        dead, latents = self.dead_codes.after_step(skipped)
        if len(dead):
            self.place(dead, random_latents(latents, len(dead)))

    @torch.no_grad()
    def initialize(self, latents: Float[Tensor, "n {self.dim}"]) -> None:
        """Initialize layer and table from the first finite latents."""
        if self.codebook_init is None or self.initialized:
            return
        places = random_latents(latents, self.codebook_size)
        if not places.isfinite().all():
            return
        centred = places - places.mean(0)
        widths, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
        if widths[-1] <= 0:
            return
        widths = widths.clamp(min=MIN_VARIANCE * widths[-1])
        self.linear.weight.copy_((axes * (widths * self.dim).sqrt()) @ axes.T)
        self.linear.bias.copy_(places.mean(0))
        self.place(torch.arange(self.codebook_size, device=places.device), places)
        self.initialized.fill_(True)

    @torch.no_grad()
    def place(self, numbers: Int[Tensor, " n"], places: Float[Tensor, "n {self.dim}"]) -> None:
        """Set table rows so that they equal `places` after the layer."""
        back = torch.linalg.pinv(self.linear.weight.float())
        self.table[numbers] = (places - self.linear.bias.float()) @ back.T
