"""Vector quantization (VQ-VAE, arXiv:1711.00937), of unit vectors by default (arXiv:2110.04627)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from genstack.compressor.bottleneck import Quantized, Quantizer
from genstack.compressor.quantizers.codebook import Codebook
from genstack.compressor.quantizers.nearest import nearest
from genstack.compressor.quantizers.straight_through import straight_through
from genstack.errors import UserError
from genstack.layout import CodeLayout


class VectorQuantizer(Quantizer):
    """Each latent becomes the nearest row of a learned codebook.

    The defaults (few dimensions, unit length, seeding, restarts) keep a codebook in use that is trained from
    scratch on little data. The quantizer of VQ-VAE and VQGAN is `dim: 256, normalize: false`.

    Args:
        codebook_size: number of rows, which is the number of values of a code.
        dim: numbers in a row; 8 to 32 keep a codebook in use, more store more per code.
        codebook_weight: weight of the term that pulls chosen rows towards the latents.
        commitment_weight: weight of the term that pulls the encoder towards the chosen rows.
        normalize: give latents and rows unit length, so that directions are compared and not sizes.
        seeding: the rows become randomly chosen latents of the first batch in training.
        dead_after: a row that was not chosen once while this many latents per row passed starts again from a
            random latent; null never restarts one.
    """

    def __init__(
        self,
        codebook_size: int = 1024,
        dim: int = 8,
        codebook_weight: float = 1.0,
        commitment_weight: float = 0.25,
        normalize: bool = True,
        seeding: bool = True,
        dead_after: float | None = 64.0,
    ):
        super().__init__()
        check("codebook_size", codebook_size, codebook_size >= 1, "1 or more")
        check("dim", dim, dim >= 1 + normalize, "2 or more, or `normalize: false` and 1 or more")
        check("codebook_weight", codebook_weight, codebook_weight >= 0, "0 or more")
        check("commitment_weight", commitment_weight, commitment_weight >= 0, "0 or more")
        check("dead_after", dead_after, dead_after is None or dead_after > 0, "more than 0, or null")
        self.codebook_size, self.dim, self.normalize = codebook_size, dim, normalize
        self.codebook_weight, self.commitment_weight = codebook_weight, commitment_weight
        self.seeding, self.dead_after = seeding, dead_after
        self.codebook = Codebook(codebook_size, dim, seeding, dead_after)

    def forward(self, latents: Float[Tensor, "b {self.dim} h w"]) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            soft = self.scaled(rearrange(latents.float(), "b d h w -> b (h w) d"))
            chosen = self.choose(rearrange(soft.detach(), "b n d -> (b n) d"))
            codes = rearrange(chosen, "(b n) -> b n", b=len(latents))
            hard = self.scaled(self.codebook(codes))
            losses = {
                "codebook": self.codebook_weight * F.mse_loss(hard, soft.detach()),
                "commitment": self.commitment_weight * F.mse_loss(soft, hard.detach()),
            }
            quantized = rearrange(straight_through(hard, soft), "b (h w) d -> b d h w", h=latents.shape[2])
        return Quantized(quantized, losses, codes=codes)

    def lookup(self, codes: Int[Tensor, "b n"], layout: CodeLayout) -> Float[Tensor, "b {self.dim} h w"]:
        (grid,) = layout.split(codes)
        return rearrange(self.scaled(self.codebook(grid)), "b h w 1 d -> b d h w")

    def after_step(self, skipped: bool) -> None:
        self.codebook.after_step(skipped)

    @torch.no_grad()
    def choose(self, latents: Float[Tensor, "n {self.dim}"]) -> Int[Tensor, " n"]:
        """The codes of latents; training teaches the codebook what is in use."""
        if self.training:
            self.codebook.seed(latents)
        codes = nearest(latents, self.scaled(self.codebook.rows))
        if self.training:
            self.codebook.observe(latents, codes)
        return codes

    def scaled(self, vectors: Float[Tensor, "*shape {self.dim}"]) -> Float[Tensor, "*shape {self.dim}"]:
        """Vectors of the length at which they are compared and decoded."""
        return F.normalize(vectors, dim=-1) if self.normalize else vectors


def check(name: str, value: int | float | None, kept: bool, limit: str) -> None:
    """Refuse a value that was not kept within its limit."""
    if not kept:
        raise UserError(f"{name} {value} is out of range; use {limit}")
