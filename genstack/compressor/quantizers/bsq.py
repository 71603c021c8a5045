"""Binary spherical quantization (Zhao et al. 2024, arXiv:2406.07548, sections 4.1 and 4.2)."""

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


class BSQ(BitQuantizer):
    """Replace latents on the unit sphere by the nearest corner of the inscribed cube; its signs are the code.

    Like LFQ, but without a commitment loss, because the distance of latents and codes is bounded.

    Args:
        bits: channels and bits of a position.
        depth: number of symbols per position; 18 bits in depth 2 are two codes of 512 values.
        entropy_weight: weight of the entropy terms, which make each latent's code certain and all codes
            equally frequent.
        diversity: weight of the batch's entropy relative to the latents' entropy.
        temperature: temperature of the distribution in the entropy terms; lower is harder.
    """

    def __init__(
        self,
        bits: int = 10,
        depth: int = 1,
        entropy_weight: float = 0.1,
        diversity: float = 1.0,
        temperature: float = 0.03,
    ):
        check("bits", bits, bits >= 1, "1 or more")
        check("entropy_weight", entropy_weight, entropy_weight >= 0, "0 or more")
        check("diversity", diversity, diversity >= 0, "0 or more")
        check("temperature", temperature, temperature > 0, "more than 0")
        super().__init__(Corners(bits, depth, reach=bits**-0.5))
        self.entropy_weight, self.diversity, self.temperature = entropy_weight, diversity, temperature

    def forward(self, latents: Float[Tensor, "b {self.dim} h w"]) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            soft = F.normalize(rearrange(latents.float(), "b d h w -> b h w d"), dim=-1)
            hard, codes = self.corners.nearest(soft)
            # the softmax over corners of u c / temperature is a product over bits (equation 8)
            logits = soft * (2 * self.corners.reach / self.temperature)
            losses = {"entropy": self.entropy_weight * entropy_term(logits, self.diversity)}
            quantized = rearrange(straight_through(hard, soft), "b h w d -> b d h w")
        return Quantized(quantized, losses, codes=codes)
