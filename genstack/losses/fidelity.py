"""Fidelity of reconstructions: PSNR and SSIM."""

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d

from genstack.data.images import to_uint8
from genstack.errors import UserError

WINDOW, SIGMA = 11, 1.5  # of SSIM, in pixels
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(images: Float[Tensor, "b c H W"], reconstructions: Float[Tensor, "b c H W"]) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio of each image in dB, after rounding both to 8 bits; infinite if equal."""
    difference = to_uint8(images).cpu().double() - to_uint8(reconstructions).cpu().double()
    return 10 * torch.log10(255**2 / reduce(difference**2, "b H W c -> b", "mean")).float()


def ssim(images: Float[Tensor, "b c H W"], reconstructions: Float[Tensor, "b c H W"]) -> Float[Tensor, " b"]:
    """Structural similarity of each image (Wang et al. 2004, doi 10.1109/TIP.2003.819861), in 8 bits.

    A Gaussian window of 11 x 11 pixels lies inside the image; values are averaged over positions and
    channels.
    """
    channels, height, width = images.shape[1:]
    if min(height, width) < WINDOW:
        raise UserError(f"SSIM needs images of {WINDOW} x {WINDOW} pixels or more, got {height} x {width}")
    one, other = (
        rearrange(to_uint8(each).cpu().double(), "b h w c -> (b c) 1 h w")
        for each in (images, reconstructions)
    )
    mean, mean2 = gaussian_mean(one), gaussian_mean(other)
    variance, variance2 = gaussian_mean(one**2) - mean**2, gaussian_mean(other**2) - mean2**2
    covariance = gaussian_mean(one * other) - mean * mean2
    similar = (2 * mean * mean2 + C1) * (2 * covariance + C2)
    similarity = similar / ((mean**2 + mean2**2 + C1) * (variance + variance2 + C2))
    return reduce(similarity, "(b c) 1 h w -> b", "mean", c=channels).float()


def gaussian_mean(planes: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 k l"]:
    """Average under a Gaussian window, at each position where it lies inside."""
    places = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    line = torch.exp(-((places / SIGMA) ** 2) / 2)
    line /= line.sum()
    return conv2d(conv2d(planes, line[None, None, :, None]), line[None, None, None, :])
