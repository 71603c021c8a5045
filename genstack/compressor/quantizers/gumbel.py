"""Gumbel-softmax quantization (arXiv:1611.01144), with the schedules of DALL-E's dVAE (arXiv:2102.12092)."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.compressor.bottleneck import Quantized, Quantizer
from genstack.compressor.quantizers.check import check
from genstack.compressor.quantizers.dead_codes import DeadCodeTracker
from genstack.compressor.quantizers.kmeans import random_latents
from genstack.layout import CodeLayout


class Gumbel(Quantizer):
    """Mix rows by a Gumbel-softmax in training, and take the most likely row in evaluation.

    The temperature is annealed, and a divergence from uniform probabilities avoids collapse. Both schedules
    are cosines, as in DALL-E's discrete VAE (appendix A.2). Unlike there, logits are cosine similarities of
    latents and rows by default, so similar codes have similar rows, and gradients do not vanish for long
    latents.

    Args:
        codebook_size: number of rows (codes).
        dim: dimensions of a row.
        sharpness: factor of the cosine similarities of latents and rows; higher makes codes more certain.
            null for logits from a linear layer without restarts, as in DALL-E and taming-transformers.
        temperature: initial temperature of the softmax.
        final_temperature: final temperature of the softmax.
        annealing: optimizer steps over which the temperature falls.
        divergence_weight: weight of the divergence from uniform probabilities, in nats per position. The
            default is from taming-transformers. DALL-E's beta of 6.6, with a likelihood in nats per value,
            is 6.6 / (channels of the image * stride^2): 0.034 for colour at stride 8.
        divergence_warmup: optimizer steps over which this weight rises from 0.
        dead_after: restart a row from a random latent once this many latents per row have passed without
            choosing it; null for no restarts.
    """

    step: Int[Tensor, ""]

    def __init__(
        self,
        codebook_size: int = 512,
        dim: int = 64,
        sharpness: float | None = 128.0,
        temperature: float = 1.0,
        final_temperature: float = 0.0625,
        annealing: int = 20000,
        divergence_weight: float = 5e-4,
        divergence_warmup: int = 5000,
        dead_after: float | None = 16.0,
    ):
        super().__init__()
        check("codebook_size", codebook_size, codebook_size >= 1, "1 or more")
        check("dim", dim, dim >= 1 + bool(sharpness), "2 or more, or `sharpness: null` and 1 or more")
        check("sharpness", sharpness, sharpness is None or sharpness > 0, "more than 0, or null")
        check("temperature", temperature, temperature > 0, "more than 0")
        check("final_temperature", final_temperature, final_temperature > 0, "more than 0")
        check("annealing", annealing, annealing >= 0, "0 or more")
        check("divergence_weight", divergence_weight, divergence_weight >= 0, "0 or more")
        check("divergence_warmup", divergence_warmup, divergence_warmup >= 0, "0 or more")
        check("dead_after", dead_after, dead_after is None or dead_after > 0, "more than 0, or null")
        self.codebook_size, self.dim, self.sharpness = codebook_size, dim, sharpness
        self.temperature, self.final_temperature, self.annealing = temperature, final_temperature, annealing
        self.divergence_weight, self.divergence_warmup = divergence_weight, divergence_warmup
        self.dead_after = dead_after
        self.length = 1.0 if sharpness is None else dim**0.5  # mean square 1 for rows that are directions
        self.rows = nn.Parameter(torch.randn(codebook_size, dim))
        self.logits = nn.Linear(dim, codebook_size) if sharpness is None else None
        self.register_buffer("step", torch.tensor(0))  # optimizer steps so far
        self.dead_codes = DeadCodeTracker(codebook_size, None if sharpness is None else dead_after)

    def forward(self, latents: Float[Tensor, "b {self.dim} h w"]) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            soft, directions = rearrange(latents.float(), "b d h w -> b h w d"), self.directions
            logits, vectors = self.scores(soft, directions), directions * self.length
            codes = logits.argmax(-1)
            if self.training:
                self.dead_codes.observe(rearrange(soft, "b h w d -> (b h w) d"), codes.flatten())
                noise = -torch.empty_like(logits).exponential_().log()
                mixed = ((logits + noise) / self.temperature_now()).softmax(-1) @ vectors
            else:
                mixed = F.embedding(codes, vectors)
            divergence = math.log(self.codebook_size) - entropy(logits).mean()
        weight = self.divergence_weight * cosine(self.step, self.divergence_warmup)
        return Quantized(
            rearrange(mixed, "b h w d -> b d h w"),
            {"divergence": weight * divergence},
            codes=rearrange(codes, "b h w -> b (h w)"),
        )

    def lookup(self, codes: Int[Tensor, "b n"], layout: CodeLayout) -> Float[Tensor, "b {self.dim} h w"]:
        (grid,) = layout.split(codes)
        return rearrange(F.embedding(grid, self.vectors), "b h w 1 d -> b d h w")

    def scores(
        self, latents: Float[Tensor, "*shape {self.dim}"], directions: Float[Tensor, "k {self.dim}"]
    ) -> Float[Tensor, "*shape k"]:
        """Compute the logits of the codes, by cosine similarity or by the linear layer."""
        if self.sharpness is not None:
            return self.sharpness * F.normalize(latents, dim=-1) @ directions.T
        weight, bias = self.get_parameter("logits.weight"), self.get_parameter("logits.bias")
        return F.linear(latents, weight.float(), bias.float())

    @property
    def directions(self) -> Float[Tensor, "{self.codebook_size} {self.dim}"]:
        """Rows at unit length; plain rows with a linear layer."""
        rows = self.rows.float()
        return rows if self.sharpness is None else F.normalize(rows, dim=1)

    @property
    def vectors(self) -> Float[Tensor, "{self.codebook_size} {self.dim}"]:
        """Vectors of codes."""
        return self.directions * self.length

    def after_step(self, skipped: bool) -> None:
        self.step += int(not skipped)
        dead, latents = self.dead_codes.after_step(skipped)
        if len(dead):
            with torch.no_grad():
                self.rows[dead] = F.normalize(random_latents(latents, len(dead)), dim=1) * self.length

    def temperature_now(self) -> Float[Tensor, ""]:
        """Return the temperature of the current step."""
        share = cosine(self.step, self.annealing)
        return self.temperature + (self.final_temperature - self.temperature) * share


def cosine(step: Int[Tensor, ""], steps: int) -> Float[Tensor, ""]:
    """Rise from 0 to 1 over a number of steps along a cosine; 1 afterwards."""
    passed = (step / steps).clamp(max=1.0) if steps else torch.ones_like(step, dtype=torch.float32)
    return (1 - torch.cos(math.pi * passed)) / 2


def entropy(logits: Float[Tensor, "*shape k"]) -> Float[Tensor, "*shape"]:
    """Entropy of the softmax of logits, in nats."""
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)
