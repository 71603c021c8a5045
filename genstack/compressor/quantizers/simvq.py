"""SimVQ: a frozen codebook behind one learned linear layer (Zhu et al. 2024, arXiv:2411.02038, section 4)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genstack.compressor.bottleneck import Quantized, Quantizer
from genstack.compressor.quantizers.check import check
from genstack.compressor.quantizers.estimator import Estimator, StraightThrough
from genstack.compressor.quantizers.idle import DeadCodeTracker
from genstack.compressor.quantizers.kmeans import draw
from genstack.compressor.quantizers.nearest import nearest
from genstack.layout import CodeLayout

#: Latents are taken for no flatter, in any direction, than this share of their widest variance.
FLATTEST = 1e-3


class SimVQ(Quantizer):
    """Each latent becomes the nearest row of a random table, seen through a linear layer.

    No gradient changes the table. The layer moves all of its rows at once, so rows that nothing chooses
    follow those that are chosen. Made for large codebooks of many dimensions. Unlike the paper's, the table
    begins with latents, seen back through the layer, and its dead rows start again from others; `seeding:
    false` and `dead_after: null` are the paper's.

    Args:
        codebook_size: number of rows, which is the number of values of a code.
        dim: numbers in a row.
        codebook_weight: weight of the term that pulls chosen rows towards the latents.
        commitment_weight: weight of the term that pulls the encoder towards the chosen rows.
        estimator: how the gradient passes the choice to the encoder: StraightThrough or RotationTrick.
        seeding: begin with a layer that has the mean and spread of the first batch in training, and with rows
            that are random latents of it.
        dead_after: a row that was not chosen once while this many latents per row passed starts again from a
            random latent; null never restarts one.
    """

    table: Float[Tensor, "{self.codebook_size} {self.dim}"]
    seeded: Bool[Tensor, ""]

    def __init__(
        self,
        codebook_size: int = 1024,
        dim: int = 32,
        codebook_weight: float = 1.0,
        commitment_weight: float = 0.25,
        estimator: Estimator = StraightThrough(),
        seeding: bool = True,
        dead_after: float | None = 16.0,
    ):
        super().__init__()
        check("codebook_size", codebook_size, codebook_size >= 1, "1 or more")
        check("dim", dim, dim >= 1, "1 or more")
        check("codebook_weight", codebook_weight, codebook_weight >= 0, "0 or more")
        check("commitment_weight", commitment_weight, commitment_weight >= 0, "0 or more")
        check("dead_after", dead_after, dead_after is None or dead_after > 0, "more than 0, or null")
        self.seeding, self.dead_after = seeding, dead_after
        self.codebook_size, self.dim, self.estimator = codebook_size, dim, estimator
        self.codebook_weight, self.commitment_weight = codebook_weight, commitment_weight
        self.register_buffer("table", torch.randn(codebook_size, dim) * dim**-0.5)
        self.register_buffer("seeded", torch.tensor(False))
        self.linear = nn.Linear(dim, dim)
        self.idle = DeadCodeTracker(codebook_size, dead_after)

    @property
    def rows(self) -> Float[Tensor, "{self.codebook_size} {self.dim}"]:
        """Rows of the table after the layer."""
        return F.linear(self.table.float(), self.linear.weight.float(), self.linear.bias.float())

    def forward(self, latents: Float[Tensor, "b {self.dim} h w"]) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            soft = rearrange(latents.float(), "b d h w -> b (h w) d")
            flat = rearrange(soft.detach(), "b n d -> (b n) d")
            if self.training:
                self.seed(flat)
            rows = self.rows
            chosen = nearest(flat, rows.detach())
            if self.training:
                self.idle.observe(flat, chosen)
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
        dead, latents = self.idle.after_step(skipped)
        if len(dead):
            self.place(dead, draw(latents, len(dead)))

    @torch.compiler.disable  # it acts on what it sees
    @torch.no_grad()
    def seed(self, latents: Float[Tensor, "n {self.dim}"]) -> None:
        """Give the rows the mean and the covariance of latents, and their places; once, unless not finite."""
        if not self.seeding or self.seeded:
            return
        places = draw(latents, self.codebook_size)
        if not places.isfinite().all():
            return
        centred = places - places.mean(0)
        widths, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
        if widths[-1] <= 0:
            return
        widths = widths.clamp(min=FLATTEST * widths[-1])
        self.linear.weight.copy_((axes * (widths * self.dim).sqrt()) @ axes.T)
        self.linear.bias.copy_(places.mean(0))
        self.place(torch.arange(self.codebook_size, device=places.device), places)
        self.seeded.fill_(True)

    @torch.no_grad()
    def place(self, numbers: Int[Tensor, " n"], places: Float[Tensor, "n {self.dim}"]) -> None:
        """Let rows be seen at places."""
        back = torch.linalg.pinv(self.linear.weight.float())
        self.table[numbers] = (places - self.linear.bias.float()) @ back.T
