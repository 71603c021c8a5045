"""Normal noise for each image from its own seed, and seeds of latents."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


class NormalStream:
    """Standard normal noise, drawn as often as needed; a row depends on its own seed only.

    Args:
        seeds: one per image; the noise lies on their device.
    """

    def __init__(self, seeds: Int[Tensor, " b"]):
        self.device = seeds.device
        # `uniforms` has 0 in the upper half of the key; with 0 here, both streams would be the same bits.
        keys = [(seed % 2**64) | (1 << 64) for seed in seeds.tolist()]
        self.generators = [np.random.Generator(np.random.Philox(key=key)) for key in keys]

    def __call__(self, shape: Sequence[int]) -> Float[Tensor, "b ..."]:
        """Draw noise of a shape for each image."""
        rows = [generator.standard_normal(tuple(shape), dtype=np.float32) for generator in self.generators]
        return torch.from_numpy(np.stack(rows)).to(self.device)


def normals(seeds: Int[Tensor, " b"], shape: Sequence[int]) -> Float[Tensor, "b ..."]:
    """Draw standard normal noise of a shape for each seed."""
    return NormalStream(seeds)(shape)


def hash_latents(latents: Float[Tensor, "b ..."]) -> Int[Tensor, " b"]:
    """Hash latents to a seed for each image: the sum modulo 2^64 of their bits times odd multipliers.

    Latents are rounded to half precision first, so that latents from an archive and freshly encoded latents
    have the same seeds.
    """
    bits = latents.flatten(1).half().view(torch.int16).long()
    multipliers = np.random.Philox(key=0).random_raw(bits.shape[1]).view(np.int64) | 1
    return ((bits + 1) * torch.from_numpy(multipliers).to(bits.device)).sum(dim=1)
