"""Index backpropagation quantization (Shi et al. 2024, arXiv:2412.02692, section 3.2)."""

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genstack.compressor.bottleneck import Quantized, Quantizer
from genstack.compressor.quantizers.binary import mean_over_processes
from genstack.compressor.quantizers.check import check
from genstack.compressor.quantizers.gumbel import entropy
from genstack.layout import CodeLayout

CHUNK = 2**22  # scores of latents against rows that exist at a time; backwards they are computed again


class IBQ(Quantizer):
    """Each latent becomes the row of the largest inner product; the gradient flows into the choice itself.

    Forwards the choice is hard, backwards it is the softmax over all rows: each row learns from each latent,
    and large codebooks of many dimensions stay in use. Memory does not grow with latents times rows.

    Args:
        codebook_size: number of rows, which is the number of values of a code.
        dim: numbers in a row.
        quantization_weight: weight of the terms that pull rows and latents together (equation 6).
        commitment_weight: weight, inside those, of what pulls chosen rows towards latents.
        entropy_weight: weight of the entropy terms, which make codes certain for each latent and even over
            the batch.
        temperature: of the softmax whose entropy is measured; smaller is harder.
    """

    def __init__(
        self,
        codebook_size: int = 1024,
        dim: int = 32,
        quantization_weight: float = 1.0,
        commitment_weight: float = 0.25,
        entropy_weight: float = 0.05,
        temperature: float = 0.01,
    ):
        super().__init__()
        check("codebook_size", codebook_size, codebook_size >= 1, "1 or more")
        check("quantization_weight", quantization_weight, quantization_weight >= 0, "0 or more")
        check("commitment_weight", commitment_weight, commitment_weight >= 0, "0 or more")
        check("entropy_weight", entropy_weight, entropy_weight >= 0, "0 or more")
        check("temperature", temperature, temperature > 0, "more than 0")
        self.codebook_size, self.dim = codebook_size, dim
        self.quantization_weight, self.commitment_weight = quantization_weight, commitment_weight
        self.entropy_weight, self.temperature = entropy_weight, temperature
        self.rows = nn.Parameter(torch.randn(codebook_size, dim) * dim**-0.5)

    def forward(self, latents: Float[Tensor, "b {self.dim} h w"]) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            soft = rearrange(latents.float(), "b d h w -> (b h w) d")
            rows = self.rows.float()
            run = partial(checkpoint, choose, use_reentrant=False, preserve_rng_state=False)
            certain, even, parts = soft.new_zeros(()), torch.zeros_like(rows[:, 0]), []
            for few in soft.split(max(1, CHUNK // self.codebook_size)):
                *chosen, entropies, probabilities = run(few, rows, self.temperature)
                certain, even = certain + entropies / len(soft), even + probabilities / len(soft)
                parts.append(chosen)
            vectors, codes = (torch.cat(part) for part in zip(*parts, strict=True))
            even = mean_over_processes(even)
            diversity = -(even * even.clamp(min=torch.finfo(even.dtype).tiny).log()).sum()
            hard = F.embedding(codes, rows)
            pulls = F.mse_loss(vectors, soft) + F.mse_loss(hard.detach(), soft)
            pulls = pulls + self.commitment_weight * F.mse_loss(hard, soft.detach())
        losses = {
            "quantization": self.quantization_weight * pulls,
            "entropy": self.entropy_weight * (certain - diversity),
        }
        b, _, h, _ = latents.shape
        quantized = rearrange(vectors, "(b h w) d -> b d h w", b=b, h=h)
        return Quantized(quantized, losses, codes=rearrange(codes, "(b n) -> b n", b=b))

    def lookup(self, codes: Int[Tensor, "b n"], layout: CodeLayout) -> Float[Tensor, "b {self.dim} h w"]:
        (grid,) = layout.split(codes)
        return rearrange(F.embedding(grid, self.rows.float()), "b h w 1 d -> b d h w")


def choose(
    latents: Float[Tensor, "n d"], rows: Float[Tensor, "k d"], temperature: float
) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"], Float[Tensor, ""], Float[Tensor, " k"]]:
    """Chosen rows with the gradient of the softmax (equations 3 to 5), their codes, and sums over latents.

    The sums are those of the softmax at the given temperature: its entropy, and its probabilities.
    """
    logits = latents @ rows.T
    codes = logits.argmax(1)
    mixed = logits.softmax(1) @ rows.detach()
    chosen = F.embedding(codes, rows) + (mixed - mixed.detach())
    sharp = logits / temperature
    return chosen, codes, entropy(sharp).sum(), sharp.softmax(1).sum(0)
