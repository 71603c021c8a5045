"""How close reconstructions are to their originals."""

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from genstack.data.images import to_uint8


def psnr(images: Float[Tensor, "b c H W"], reconstructions: Float[Tensor, "b c H W"]) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio of each image in dB, after rounding both to 8 bits as files do; peak 255.

    Equal images have infinite PSNR.
    """
    difference = to_uint8(images).cpu().double() - to_uint8(reconstructions).cpu().double()
    return 10 * torch.log10(255**2 / reduce(difference**2, "b H W c -> b", "mean")).float()
