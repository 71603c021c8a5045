"""Gaussian latents of a variational autoencoder (Kingma & Welling 2013, arXiv:1312.6114)."""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from genstack.compressor.bottleneck import Bottleneck, BottleneckOutput
from genstack.compressor.quantizers.check import check
from genstack.layout import LatentLayout

#: Range of log-variances; their exponentials stay finite in float32.
MIN_LOG_VARIANCE, MAX_LOG_VARIANCE = -30.0, 20.0


class Gaussian(Bottleneck):
    """Sample each latent value from a normal distribution that the encoder predicts; it has no codes.

    The loss is the KL divergence from the standard normal in nats, summed over channels and averaged over
    positions, so its weight does not depend on the image size. Nats per pixel are nats per position /
    stride^2. With L2, the bound of the paper for pixels of standard deviation s has the weight 2 s^2 /
    (channels of the image * stride^2).

    Args:
        dim: channels of the latents; the encoder predicts a mean and a log-variance for each.
        divergence_weight: weight of the KL divergence in nats per position; higher for smoother latents and
            better samples, lower for better reconstructions.
        free_bits: bits per channel and position without a loss (arXiv:1606.04934, equation 15), which keeps
            channels in use; 0 for none.
        shift: published mean of the latents (`shift_factor` of diffusers).
        scale: published factor that gives latents minus `shift` a standard deviation of 1 (`scaling_factor`);
            null if unknown, so that priors measure both.
    """

    def __init__(
        self,
        dim: int = 16,
        divergence_weight: float = 1e-3,
        free_bits: float = 0.0,
        shift: float = 0.0,
        scale: float | None = None,
    ):
        super().__init__()
        check("dim", dim, dim >= 1, "1 or more")
        check("divergence_weight", divergence_weight, divergence_weight >= 0, "0 or more")
        check("free_bits", free_bits, free_bits >= 0, "0 or more")
        check("scale", scale, scale is None or 0 < scale < math.inf, "above 0, or null")
        self.dim, self.divergence_weight, self.free_bits = dim, divergence_weight, free_bits
        self.shift, self.scale = shift, scale

    @property
    def dim_in(self) -> int:
        return 2 * self.dim

    def forward(self, latents: Float[Tensor, "b {self.dim_in} h w"]) -> BottleneckOutput:
        """Sample in training, and take the mean in evaluation."""
        with torch.autocast(latents.device.type, enabled=False):
            mean, log_variance = parameters(latents)
            noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
            nats = divergence(mean, log_variance)
            sampled = mean + (log_variance / 2).exp() * noise
            return BottleneckOutput(sampled, {"divergence": self.divergence_weight * self.loss(nats)}, nats)

    def layout(self, image_size: tuple[int, int], height: int, width: int) -> LatentLayout:
        return LatentLayout(image_size, self.dim, ((height, width),))

    def encode(self, latents: Float[Tensor, "b {self.dim_in} h w"]) -> Float[Tensor, "b d h w"]:
        """Return the means of the latents."""
        return parameters(latents)[0]

    def posterior(self, latents: Float[Tensor, "b {self.dim_in} h w"]) -> Float[Tensor, "b two=2 d h w"]:
        """Return means and standard deviations of the latents."""
        mean, log_variance = parameters(latents)
        return torch.stack([mean, (log_variance / 2).exp()], dim=1)

    def lookup(self, values: Float[Tensor, "b d h w"], layout: LatentLayout) -> Float[Tensor, "b d h w"]:
        return values

    @property
    def standardization(self) -> tuple[float, float] | None:
        return None if self.scale is None else (self.shift, 1 / self.scale)

    def loss(self, nats: Float[Tensor, "b d h w"]) -> Float[Tensor, ""]:
        """Nats per position; each channel counts at least its free bits."""
        return nats.mean((0, 2, 3)).clamp(min=self.free_bits * math.log(2)).sum()

    def sample(
        self, seeds: Int[Tensor, " b"], height: int, width: int, temperature: float
    ) -> Float[Tensor, "b d h w"]:
        """Sample latents from the standard normal."""
        shape = (self.dim, height, width)
        generators = [np.random.Generator(np.random.Philox(key=seed % 2**64)) for seed in seeds.tolist()]
        normal = [generator.standard_normal(shape, dtype=np.float32) for generator in generators]
        return temperature * torch.from_numpy(np.stack(normal)).to(seeds.device)


def parameters(
    latents: Float[Tensor, "b _ h w"],
) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "b d h w"]]:
    """Split means and log-variances, in float32."""
    mean, log_variance = latents.float().chunk(2, dim=1)
    return mean, log_variance.clamp(MIN_LOG_VARIANCE, MAX_LOG_VARIANCE)


def divergence(
    mean: Float[Tensor, "*shape"], log_variance: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Kullback-Leibler divergence of a normal from the standard normal, in nats (appendix B)."""
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2
