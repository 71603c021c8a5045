"""Gumbel-softmax quantization (arXiv:1611.01144), with the schedules of DALL-E's dVAE (arXiv:2102.12092)."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genstack.compressor.bottleneck import Quantized, Quantizer
from genstack.compressor.quantizers.check import check
from genstack.compressor.quantizers.idle import Idle
from genstack.compressor.quantizers.kmeans import agreed, draw
from genstack.layout import CodeLayout

#: Of seeded probabilities: how far a squared distance as large as latents are lowers a logit, times two.
SHARPNESS = 64.0
#: Latents are taken for no shorter than with this squared length.
SHORTEST = 1e-6
#: How far the probabilities of a code that starts again turn away from those of its neighbour.
SPLIT = 0.1


class Gumbel(Quantizer):
    """Latents become probabilities of codes: training mixes rows by a noisy softmax, use takes the likeliest.

    The mixtures harden while the temperature falls; the divergence of the probabilities from uniform ones
    keeps all codes in reach. Both follow cosines, as in DALL-E's discrete VAE (appendix A.2). A code is
    likeliest around a latent of the first batch, when training begins, and a code that is never the likeliest
    comes to share another's place.

    Args:
        codebook_size: number of rows, which is the number of values of a code.
        dim: numbers in a row, and channels that the probabilities are made of.
        temperature: of the softmax at the start.
        final_temperature: of the softmax in the end.
        annealing: optimizer steps in which the temperature falls.
        divergence_weight: weight of the divergence from uniform probabilities, in nats per position. The
            default is that of taming-transformers; DALL-E's beta of 6.6, beside a likelihood in nats per
            value, is 6.6 / (channels of the image * stride^2): 0.034 for colour at stride 8.
        divergence_warmup: optimizer steps in which that weight rises from 0.
        seeding: begin with codes that are likeliest around random latents of the first batch in training.
        dead_after: a code that was not the likeliest once while this many latents per code passed starts
            again beside one that is; null never restarts one.
    """

    step: Int[Tensor, ""]
    seeded: Bool[Tensor, ""]

    def __init__(
        self,
        codebook_size: int = 512,
        dim: int = 64,
        temperature: float = 1.0,
        final_temperature: float = 0.0625,
        annealing: int = 20000,
        divergence_weight: float = 5e-4,
        divergence_warmup: int = 5000,
        seeding: bool = True,
        dead_after: float | None = 64.0,
    ):
        super().__init__()
        check("codebook_size", codebook_size, codebook_size >= 1, "1 or more")
        check("temperature", temperature, temperature > 0, "more than 0")
        check("final_temperature", final_temperature, final_temperature > 0, "more than 0")
        check("annealing", annealing, annealing >= 0, "0 or more")
        check("divergence_weight", divergence_weight, divergence_weight >= 0, "0 or more")
        check("divergence_warmup", divergence_warmup, divergence_warmup >= 0, "0 or more")
        check("dead_after", dead_after, dead_after is None or dead_after > 0, "more than 0, or null")
        self.codebook_size, self.dim = codebook_size, dim
        self.temperature, self.final_temperature, self.annealing = temperature, final_temperature, annealing
        self.divergence_weight, self.divergence_warmup = divergence_weight, divergence_warmup
        self.seeding, self.dead_after = seeding, dead_after
        self.logits = nn.Linear(dim, codebook_size)
        self.rows = nn.Parameter(torch.randn(codebook_size, dim))
        self.register_buffer("step", torch.tensor(0))  # optimizer steps so far
        self.register_buffer("seeded", torch.tensor(False))
        self.idle = Idle(codebook_size, dead_after)

    def forward(self, latents: Float[Tensor, "b {self.dim} h w"]) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            features = rearrange(latents.float(), "b d h w -> b h w d")
            if self.training:
                self.seed(rearrange(features.detach(), "b h w d -> (b h w) d"))
            logits = F.linear(features, self.logits.weight.float(), self.logits.bias.float())
            codes = rearrange(logits.argmax(-1), "b h w -> b (h w)")
            if self.training:
                self.idle.observe(rearrange(features, "b h w d -> (b h w) d"), codes.flatten())
                noise = -torch.empty_like(logits).exponential_().log()
                shares = ((logits + noise) / self.temperature_now()).softmax(-1)
                mixed = rearrange(shares @ self.rows.float(), "b h w d -> b d h w")
            else:
                mixed = rearrange(F.embedding(logits.argmax(-1), self.rows.float()), "b h w d -> b d h w")
            divergence = math.log(self.codebook_size) - entropy(logits).mean()
        weight = self.divergence_weight * cosine(self.step, self.divergence_warmup)
        return Quantized(mixed, {"divergence": weight * divergence}, codes=codes)

    def lookup(self, codes: Int[Tensor, "b n"], layout: CodeLayout) -> Float[Tensor, "b {self.dim} h w"]:
        (grid,) = layout.split(codes)
        return rearrange(F.embedding(grid, self.rows.float()), "b h w 1 d -> b d h w")

    def after_step(self, skipped: bool) -> None:
        self.step += int(not skipped)
        dead, latents = self.idle.after_step(skipped)
        if len(dead) > self.codebook_size // 2:
            self.place(dead, draw(latents, len(dead)))
        elif len(dead):
            self.split(dead, latents)

    @torch.compiler.disable  # it acts on what it sees
    @torch.no_grad()
    def seed(self, latents: Float[Tensor, "n {self.dim}"]) -> None:
        """Let each code be likeliest around a random latent, once, unless these are not finite."""
        if not self.seeding or self.seeded:
            return
        places = draw(latents, self.codebook_size)
        if places.isfinite().all():
            self.place(torch.arange(self.codebook_size, device=places.device), places)
            self.seeded.fill_(True)

    @torch.no_grad()
    def place(self, numbers: Int[Tensor, " n"], places: Float[Tensor, "n {self.dim}"]) -> None:
        """Let codes be likeliest around places.

        The logit s (z c - |c|^2 / 2) is -s |z - c|^2 / 2 but for what all codes have in common. The
        longer the latents the softer it is, however close they lie: where all lie to one side, which is
        what moves first, sharper ones would turn to one code for good, since gradients then vanish.
        """
        sharpness = SHARPNESS / places.square().sum(1).mean().clamp(min=SHORTEST)
        self.logits.weight[numbers] = sharpness * places
        self.logits.bias[numbers] = -sharpness * places.square().sum(1) / 2
        self.rows[numbers] = places

    @torch.no_grad()
    def split(self, dead: Int[Tensor, " n"], latents: Float[Tensor, "m {self.dim}"]) -> None:
        """Let dead codes share the places of codes in use: their logits are equal at a random latent."""
        places = draw(latents, len(dead))
        weight, bias = self.logits.weight.float(), self.logits.bias.float()
        shared = F.linear(places, weight, bias).argmax(1)
        away = F.normalize(agreed(torch.randn_like(places)), dim=1)
        turn = SPLIT * weight[shared].norm(dim=1, keepdim=True) * away
        self.logits.weight[dead] = weight[shared] + turn
        self.logits.bias[dead] = bias[shared] - (turn * places).sum(1)
        self.rows[dead] = self.rows[shared]

    def temperature_now(self) -> Float[Tensor, ""]:
        """The temperature of this step."""
        fallen = cosine(self.step, self.annealing)
        return self.temperature + (self.final_temperature - self.temperature) * fallen


def cosine(step: Int[Tensor, ""], steps: int) -> Float[Tensor, ""]:
    """From 0 to 1 in so many steps, slow at both ends; 1 from there on."""
    passed = (step / steps).clamp(max=1.0) if steps else torch.ones_like(step, dtype=torch.float32)
    return (1 - torch.cos(math.pi * passed)) / 2


def entropy(logits: Float[Tensor, "*shape k"]) -> Float[Tensor, "*shape"]:
    """Entropy of the softmax of logits, in nats."""
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)
