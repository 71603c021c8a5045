"""Priors over latents without codes, such as latents of a Gaussian bottleneck."""

from abc import abstractmethod
from collections.abc import Iterable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from genstack.compressor.compressor import Compressor
from genstack.dist import all_reduce_sum, is_distributed
from genstack.layout import LatentLayout
from genstack.prior.normals import hash_latents, normals
from genstack.prior.prior import Prior


class LatentPrior(Prior):
    """A distribution over latents `b d h w`.

    `standardization` holds mean and deviation of each channel, as measured on training data by `fit` or as
    published with the compressor; it is saved with the weights.
    """

    layout: LatentLayout
    layouts = LatentLayout
    remedy = (
        "use a prior of codes such as Autoregressive (--config autoregressive), or a compressor "
        "with the bottleneck Gaussian (--config vae)"
    )
    context = "all"
    unsupported = ("top_k", "top_p", "min_p")
    presets = {"fid": {}, "pretty": {"temperature": 0.95, "guidance": 2.0}, "fast": {"steps": 8}}
    standardization: "Standardization"

    def fit(self, compressor: Compressor, posteriors: Iterable[Tensor]) -> None:
        """Measure mean and deviation of each channel, or take the values published with the compressor."""
        if compressor.standardization is not None:
            self.standardization.set(*compressor.standardization)
        elif not self.standardization.images:
            self.standardization.measure(posteriors)

    def read(self, posterior: Float[Tensor, "b two=2 d h w"]) -> Float[Tensor, "b d h w"]:
        """Draw latents; in eval mode in half precision, as in archives, by noise that follows from them."""
        if self.training:
            mean, deviation = posterior.unbind(dim=1)
            return mean + deviation * torch.randn_like(mean)
        mean, deviation = posterior.half().float().unbind(dim=1)
        return mean + deviation * normals(hash_latents(posterior), mean.shape[1:])

    @abstractmethod
    def loss(self, latents: Float[Tensor, "b d h w"], condition: Tensor) -> Float[Tensor, ""]: ...

    @abstractmethod
    def held_out_loss(self, latents: Float[Tensor, "b d h w"], condition: Tensor) -> Float[Tensor, " b"]:
        """Objective of each image, always the same for the same image; call it in eval mode."""

    @abstractmethod
    def nats(self, latents: Float[Tensor, "b d h w"], condition: Tensor) -> Float[Tensor, " b"]:
        """Negative log-density of each image's latents in nats; see `likelihood`."""


class Standardization(nn.Module):
    """Mean and standard deviation of each channel of latents.

    Args:
        dim: number of channels.
    """

    mean: Tensor
    deviation: Tensor
    images: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))
        self.register_buffer("images", torch.tensor(0))  # measured; 0 for none, or published values

    def forward(self, latents: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        """Standardize latents."""
        return (latents - per_channel(self.mean)) / per_channel(self.deviation)

    def restore(self, standardized: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        """Return to the scale of the compressor; the inverse of `forward`."""
        return standardized * per_channel(self.deviation) + per_channel(self.mean)

    def set(self, mean: float, deviation: float) -> None:
        """Use the same mean and deviation for all channels."""
        self.mean.fill_(mean)
        self.deviation.fill_(deviation)

    @torch.no_grad()
    def measure(self, posteriors: Iterable[Tensor]) -> None:
        """Measure latents of training images, over all processes."""
        sums = torch.zeros(2, len(self.mean), dtype=torch.float64)
        values = images = 0
        for posterior in posteriors:
            mean, deviation = posterior.double().cpu().unbind(dim=1)
            sums += torch.stack([mean.sum((0, 2, 3)), (mean**2 + deviation**2).sum((0, 2, 3))])
            values, images = values + mean[:, 0].numel(), images + len(mean)
        counts = torch.tensor([values, images], dtype=torch.float64)
        device = self.mean.device if is_distributed() else torch.device("cpu")  # MPS has no float64
        total = all_reduce_sum(torch.cat([counts, sums.flatten()]).to(device)).cpu()
        first, second = (part / total[0] for part in total[2:].chunk(2))
        self.mean.copy_(first)
        self.deviation.copy_((second - first**2).clamp(min=0).sqrt().clamp(min=1e-6))
        self.images.fill_(int(total[1]))


def per_channel(values: Float[Tensor, " d"]) -> Float[Tensor, "d 1 1"]:
    """Shape values of channels for latents."""
    return rearrange(values, "d -> d 1 1")
