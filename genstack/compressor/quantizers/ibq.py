"""Index backpropagation quantization (Shi et al. 2024, arXiv:2412.02692, section 3.2)."""

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genstack.compressor.bottleneck import Quantized, Quantizer
from genstack.compressor.quantizers.check import check
from genstack.compressor.quantizers.dead_codes import DeadCodeTracker
from genstack.compressor.quantizers.kmeans import random_latents
from genstack.compressor.quantizers.soft_choice import soft_choice
from genstack.dist import broadcast
from genstack.layout import CodeLayout

AHEAD = 0.01  # lead of a restarted row's product with its latent, in variances of the latents
TINY = 1e-12  # least squared length in a division


class IBQ(Quantizer):
    """Replace each latent by the row of the largest inner product, with gradients through the choice.

    The choice is hard in the forward pass, and the softmax over all rows in the backward pass. Every row
    learns from every latent, which avoids collapse of large codebooks. Memory does not grow with latents
    times rows.

    Args:
        codebook_size: number of rows (codes).
        dim: dimensions of a row.
        quantization_weight: weight of the losses that pull rows and latents together (equation 6).
        commitment_weight: relative weight of the loss that pulls chosen rows to their latents.
        entropy_weight: weight of the entropy terms, which make each latent's code certain and all codes
            equally frequent.
        temperature: temperature of the softmax in the entropy terms; lower is harder.
        codebook_init: initialize rows with the directions of random latents of the first training batch, at
            the latents' mean length (latents); null for random rows.
        dead_after: restart a row from a random latent once this many latents per row have passed without
            choosing it; null for no restarts.
    """

    initialized: Bool[Tensor, ""]

    def __init__(
        self,
        codebook_size: int = 1024,
        dim: int = 32,
        quantization_weight: float = 1.0,
        commitment_weight: float = 0.25,
        entropy_weight: float = 0.05,
        temperature: float = 0.01,
        codebook_init: Literal["latents"] | None = "latents",
        dead_after: float | None = 16.0,
    ):
        super().__init__()
        check("codebook_size", codebook_size, codebook_size >= 1, "1 or more")
        check("quantization_weight", quantization_weight, quantization_weight >= 0, "0 or more")
        check("commitment_weight", commitment_weight, commitment_weight >= 0, "0 or more")
        check("entropy_weight", entropy_weight, entropy_weight >= 0, "0 or more")
        check("temperature", temperature, temperature > 0, "more than 0")
        check("dead_after", dead_after, dead_after is None or dead_after > 0, "more than 0, or null")
        self.codebook_size, self.dim = codebook_size, dim
        self.quantization_weight, self.commitment_weight = quantization_weight, commitment_weight
        self.entropy_weight, self.temperature = entropy_weight, temperature
        self.codebook_init, self.dead_after = codebook_init, dead_after
        self.rows = nn.Parameter(torch.randn(codebook_size, dim) * dim**-0.5)
        self.register_buffer("initialized", torch.tensor(False))
        self.dead_codes = DeadCodeTracker(codebook_size, dead_after)

    def forward(self, latents: Float[Tensor, "b {self.dim} h w"]) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            soft = rearrange(latents.float(), "b d h w -> (b h w) d")
            if self.training:
                self.initialize(soft.detach())
            rows = self.rows.float()
            chosen = soft_choice(soft, rows, self.temperature)
            vectors, hard, codes = chosen.vectors, chosen.hard, chosen.codes
            if self.training:
                self.dead_codes.observe(soft, codes)
            pulls = F.mse_loss(vectors, soft) + F.mse_loss(hard.detach(), soft)
            pulls = pulls + self.commitment_weight * F.mse_loss(hard, soft.detach())
        losses = {
            "quantization": self.quantization_weight * pulls,
            "entropy": self.entropy_weight * (chosen.entropy - chosen.entropy_of_mean),
        }
        b, _, h, _ = latents.shape
        quantized = rearrange(vectors, "(b h w) d -> b d h w", b=b, h=h)
        return Quantized(quantized, losses, codes=rearrange(codes, "(b n) -> b n", b=b))

    def lookup(self, codes: Int[Tensor, "b n"], layout: CodeLayout) -> Float[Tensor, "b {self.dim} h w"]:
        (grid,) = layout.split(codes)
        return rearrange(F.embedding(grid, self.rows.float()), "b h w 1 d -> b d h w")

    def after_step(self, skipped: bool) -> None:
        dead, latents = self.dead_codes.after_step(skipped)
        if len(dead):
            self.restart(dead, latents)

    @torch.no_grad()
    def initialize(self, latents: Float[Tensor, "n {self.dim}"]) -> None:
        """Initialize the directions of rows from the first finite latents."""
        if self.codebook_init is None or self.initialized:
            return
        places = random_latents(latents, self.codebook_size)
        if places.isfinite().all():
            self.rows.copy_(F.normalize(places, dim=1) * places.norm(dim=1).mean())
            self.initialized.fill_(True)

    @torch.no_grad()
    def restart(self, dead: Int[Tensor, " n"], latents: Float[Tensor, "m {self.dim}"]) -> None:
        """Set dead rows to the directions of random latents, just long enough to be chosen by them.

        Rows as long as their latents would lose to longer rows of other directions. The lead is a share of
        the latents' variance: if all latents lie to one side, a share of the product would take them all.
        """
        places = random_latents(latents, len(dead))
        lead = AHEAD * broadcast((latents - latents.mean(0)).square().sum(1).mean())
        used = torch.ones(self.codebook_size, dtype=torch.bool, device=dead.device)
        used[dead] = False
        best = soft_choice(places, self.rows.float()[used], self.temperature).vectors
        products = (best * places).sum(1, keepdim=True).clamp(min=0) + lead
        self.rows[dead] = places * products / places.square().sum(1, keepdim=True).clamp(min=TINY)
