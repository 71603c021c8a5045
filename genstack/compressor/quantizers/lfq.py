"""Lookup-free quantization (MAGVIT-v2, Yu et al. 2023, arXiv:2310.05737, section 3.1)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from genstack.compressor.bottleneck import Quantized
from genstack.compressor.quantizers.binary import entropy_term
from genstack.compressor.quantizers.check import check
from genstack.compressor.quantizers.corners import BitQuantizer, Corners
from genstack.compressor.quantizers.estimator import straight_through


class LFQ(BitQuantizer):
    """Replace each channel by its sign, -1 or 1; the signs of a position are the bits of its code.

    It gives large codebooks without a table. The entropy terms (equation 5) make each latent's code certain
    and all codes equally frequent. The batch's entropy is exact up to 9 bits; beyond, it is bounded from
    above by a sum over groups of 9 bits.

    Args:
        bits: channels and bits of a position; 10 for 1,024 codes, 18 for 262,144.
        depth: number of symbols per position; 18 bits in depth 2 are two codes of 512 values.
        entropy_weight: weight of the entropy terms.
        diversity: weight of the batch's entropy relative to the latents' entropy.
        commitment_weight: weight of the commitment loss, which pulls latents to -1 and 1.
        temperature: temperature of the distribution in the entropy terms; lower is harder.
    """

    def __init__(
        self,
        bits: int = 10,
        depth: int = 1,
        entropy_weight: float = 0.1,
        diversity: float = 1.0,
        commitment_weight: float = 0.1,
        temperature: float = 0.3,
    ):
        check("bits", bits, bits >= 1, "1 or more")
        check("entropy_weight", entropy_weight, entropy_weight >= 0, "0 or more")
        check("diversity", diversity, diversity >= 0, "0 or more")
        check("commitment_weight", commitment_weight, commitment_weight >= 0, "0 or more")
        check("temperature", temperature, temperature > 0, "more than 0")
        super().__init__(Corners(bits, depth))
        self.entropy_weight, self.diversity = entropy_weight, diversity
        self.commitment_weight, self.temperature = commitment_weight, temperature

    def forward(self, latents: Float[Tensor, "b {self.dim} h w"]) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            soft = rearrange(latents.float(), "b d h w -> b h w d")
            hard, codes = self.corners.nearest(soft)
            # the softmax over codes of -|z - c|^2 / temperature is a product over bits
            logits = soft * (4 / self.temperature)
            losses = {
                "entropy": self.entropy_weight * entropy_term(logits, self.diversity),
                "commitment": self.commitment_weight * F.mse_loss(soft, hard),
            }
            quantized = rearrange(straight_through(hard, soft), "b h w d -> b d h w")
        return Quantized(quantized, losses, codes=codes)
