"""Latents as normal distributions: the variational autoencoder (Kingma & Welling 2013, arXiv:1312.6114)."""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from genstack.compressor.bottleneck import Bottleneck, Bottlenecked
from genstack.compressor.quantizers.check import check
from genstack.layout import LatentLayout

#: Logarithms of variances beyond these have no use, and their exponentials no room in float32.
LEAST, MOST = -30.0, 20.0


class Gaussian(Bottleneck):
    """Each latent number is drawn from a normal distribution that the encoder writes; there are no codes.

    What is drawn has a price: the divergence of that distribution from the standard normal, summed over the
    channels and averaged over the positions of the latents, in nats, so that its weight means the same at
    every image size. Nats per image are nats per position times the number of positions, and nats per pixel
    are nats per position / stride^2. With L2, a mean over all values of an image, the bound of the paper for
    pixels of standard deviation s has the weight 2 s^2 / (channels of the image * stride^2).

    Args:
        dim: channels of the latents; the encoder writes a mean and a log-variance for each.
        divergence_weight: price of a nat per position of the latents; higher for smoother latents and better
            samples, lower for closer reconstructions.
        free_bits: bits per channel and position that cost nothing (arXiv:1606.04934, equation 15), so that no
            channel falls silent; 0 for none.
        shift: mean of the latents, as published files state it for priors (`shift_factor` of diffusers).
        scale: factor that gives latents less `shift` a standard deviation of 1 (`scaling_factor`); null if
            unknown, so that priors measure mean and deviation themselves.
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

    def forward(self, latents: Float[Tensor, "b {self.dim_in} h w"]) -> Bottlenecked:
        """A draw in training, the mean in evaluation."""
        with torch.autocast(latents.device.type, enabled=False):
            mean, log_variance = parameters(latents)
            noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
            nats = divergence(mean, log_variance)
            drawn = mean + (log_variance / 2).exp() * noise
            return Bottlenecked(drawn, {"divergence": self.divergence_weight * self.price(nats)}, nats)

    def layout(self, image_size: tuple[int, int], height: int, width: int) -> LatentLayout:
        return LatentLayout(image_size, self.dim, ((height, width),))

    def encode(self, latents: Float[Tensor, "b {self.dim_in} h w"]) -> Float[Tensor, "b d h w"]:
        """Means of the latents."""
        return parameters(latents)[0]

    def posterior(self, latents: Float[Tensor, "b {self.dim_in} h w"]) -> Float[Tensor, "b two=2 d h w"]:
        """Means and standard deviations of the latents."""
        mean, log_variance = parameters(latents)
        return torch.stack([mean, (log_variance / 2).exp()], dim=1)

    def lookup(self, values: Float[Tensor, "b d h w"], layout: LatentLayout) -> Float[Tensor, "b d h w"]:
        return values

    @property
    def standardization(self) -> tuple[float, float] | None:
        return None if self.scale is None else (self.shift, 1 / self.scale)

    def price(self, nats: Float[Tensor, "b d h w"]) -> Float[Tensor, ""]:
        """Nats per position, each channel's share not below what is free."""
        return nats.mean((0, 2, 3)).clamp(min=self.free_bits * math.log(2)).sum()

    def draw(
        self, seeds: Int[Tensor, " b"], height: int, width: int, temperature: float
    ) -> Float[Tensor, "b d h w"]:
        """Latents from the standard normal, which is what the divergence pulls them towards."""
        shape = (self.dim, height, width)
        chance = [np.random.Generator(np.random.Philox(key=seed % 2**64)) for seed in seeds.tolist()]
        normal = [one.standard_normal(shape, dtype=np.float32) for one in chance]
        return temperature * torch.from_numpy(np.stack(normal)).to(seeds.device)


def parameters(
    latents: Float[Tensor, "b _ h w"],
) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "b d h w"]]:
    """Means and logarithms of variances, in float32."""
    mean, log_variance = latents.float().chunk(2, dim=1)
    return mean, log_variance.clamp(LEAST, MOST)


def divergence(
    mean: Float[Tensor, "*shape"], log_variance: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Kullback-Leibler divergence of a normal from the standard normal, in nats (appendix B)."""
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2
