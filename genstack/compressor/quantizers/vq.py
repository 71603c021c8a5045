"""Vector quantization (VQ-VAE, arXiv:1711.00937), of unit vectors by default (arXiv:2110.04627)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from genstack.compressor.bottleneck import Quantized, Quantizer
from genstack.compressor.quantizers.check import check
from genstack.compressor.quantizers.codebook import CodebookInit
from genstack.compressor.quantizers.estimator import GradientEstimator, StraightThrough
from genstack.compressor.quantizers.nearest import nearest
from genstack.compressor.quantizers.soft_choice import soft_choice
from genstack.compressor.quantizers.update import CodebookUpdate, GradientUpdate
from genstack.layout import CodeLayout


class VectorQuantizer(Quantizer):
    """Replace each latent by the nearest row of a learned codebook.

    The defaults (few dimensions, unit length, rows from latents, restarts) avoid collapse when training from
    scratch on little data. VQGAN's is `dim: 256, normalize: false, codebook_init: null, dead_after: null`.

    Args:
        codebook_size: number of rows (codes).
        dim: dimensions of a row; 8 to 32 avoid collapse.
        update: update rule of the rows, GradientUpdate or EMAUpdate.
        commitment_weight: weight of the commitment loss, which pulls latents to their rows.
        normalize: compare latents and rows at unit length, by direction only.
        estimator: gradient through quantization, StraightThrough or RotationTrick.
        codebook_init: initialize rows with random latents of the first training batch (latents), or with
            the means of its clusters (kmeans); null for random rows.
        dead_after: restart a row from a random latent after `dead_after` x `codebook_size` latents without
            use; null for no restarts.
        entropy_weight: weight of the entropy terms of MaskBit and LlamaGen, which make each latent's code
            certain and all codes equally frequent; 0 saves their cost.
        temperature: temperature of the softmax in the entropy terms; lower is harder.
    """

    def __init__(
        self,
        codebook_size: int = 1024,
        dim: int = 8,
        update: CodebookUpdate = GradientUpdate(),
        commitment_weight: float = 0.25,
        normalize: bool = True,
        estimator: GradientEstimator = StraightThrough(),
        codebook_init: CodebookInit | None = "latents",
        dead_after: float | None = 16.0,
        entropy_weight: float = 0.0,
        temperature: float = 0.01,
    ):
        super().__init__()
        check("codebook_size", codebook_size, codebook_size >= 1, "1 or more")
        check("dim", dim, dim >= 1 + normalize, "2 or more, or `normalize: false` and 1 or more")
        check("commitment_weight", commitment_weight, commitment_weight >= 0, "0 or more")
        check("dead_after", dead_after, dead_after is None or dead_after > 0, "more than 0, or null")
        check("entropy_weight", entropy_weight, entropy_weight >= 0, "0 or more")
        check("temperature", temperature, temperature > 0, "more than 0")
        self.entropy_weight, self.temperature = entropy_weight, temperature
        self.codebook_size, self.dim, self.normalize = codebook_size, dim, normalize
        self.update, self.commitment_weight, self.estimator = update, commitment_weight, estimator
        self.codebook_init, self.dead_after = codebook_init, dead_after
        self.codebook = update.codebook(codebook_size, dim, codebook_init, dead_after)

    def forward(self, latents: Float[Tensor, "b {self.dim} h w"]) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            soft = self.rescale(rearrange(latents.float(), "b d h w -> b (h w) d"))
            self.initialize(soft)
            codes = self.choose(soft)
            self.observe(soft, codes)
            hard = self.vectors(codes)
            quantized = rearrange(self.estimator(hard, soft), "b (h w) d -> b d h w", h=latents.shape[2])
            return Quantized(quantized, self.losses(hard, soft), codes=codes)

    def lookup(self, codes: Int[Tensor, "b n"], layout: CodeLayout) -> Float[Tensor, "b {self.dim} h w"]:
        (grid,) = layout.split(codes)
        return rearrange(self.vectors(grid), "b h w 1 d -> b d h w")

    def after_step(self, skipped: bool) -> None:
        self.codebook.after_step(skipped)

    def initialize(self, soft: Float[Tensor, "b n {self.dim}"]) -> bool:
        """Initialize the codebook from the first normalized latents of training; see `Codebook`."""
        return self.training and self.codebook.initialize(rearrange(soft, "b n d -> (b n) d"))

    @torch.no_grad()
    def choose(self, soft: Float[Tensor, "b n {self.dim}"]) -> Int[Tensor, "b n"]:
        """Return the codes of normalized latents."""
        latents = rearrange(soft, "b n d -> (b n) d")
        return rearrange(nearest(latents, self.rescale(self.codebook.rows)), "(b n) -> b n", b=len(soft))

    def observe(self, soft: Float[Tensor, "b n {self.dim}"], codes: Int[Tensor, "b n"]) -> None:
        """Track the codes of normalized latents in training."""
        if self.training:
            self.codebook.observe(rearrange(soft, "b n d -> (b n) d"), codes.flatten())

    def vectors(self, codes: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape {self.dim}"]:
        """Return the vectors of codes."""
        return self.rescale(self.codebook(codes))

    def losses(
        self, hard: Float[Tensor, "b n {self.dim}"], soft: Float[Tensor, "b n {self.dim}"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute codebook and commitment losses (arXiv:1711.00937, eq. 3), entropy (arXiv:2409.16211)."""
        commitment = self.commitment_weight * F.mse_loss(soft, hard.detach())
        terms = self.update.losses(hard, soft) | {"commitment": commitment}
        return terms | ({"entropy": self.entropy_weight * self.entropy(soft)} if self.entropy_weight else {})

    def entropy(self, soft: Float[Tensor, "b n {self.dim}"]) -> Float[Tensor, ""]:
        """Mean entropy of softmax(-|z - e|^2 / temperature) minus entropy of its mean (arXiv:2409.16211).

        Up to |z|^2, which is constant over rows, -|z - e|^2 / 2 is the product of (z, 1) and (e, -|e|^2 / 2).
        """
        latents, rows = rearrange(soft, "b n d -> (b n) d"), self.rescale(self.codebook.rows)
        chosen = soft_choice(
            F.pad(latents, (0, 1), value=1.0),
            torch.cat([rows, -rows.square().sum(1, keepdim=True) / 2], dim=1),
            self.temperature / 2,
        )
        return chosen.entropy - chosen.entropy_of_mean

    def rescale(self, vectors: Float[Tensor, "*shape {self.dim}"]) -> Float[Tensor, "*shape {self.dim}"]:
        """Scale vectors to unit length if `normalize` is set."""
        return F.normalize(vectors, dim=-1) if self.normalize else vectors
