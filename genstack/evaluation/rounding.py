"""Rounding of images as in saved files, for both sets of a comparison."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from genstack.data.images import Preprocessing


def as_saved(images: Float[Tensor, "b c H W"], preprocessing: Preprocessing) -> Float[Tensor, "b c H W"]:
    """Return what `data.framing.load` reads from the PNG files that `data.images.save` writes."""
    values = torch.from_numpy(preprocessing.to_file(images).astype("float32"))
    pixels = values if preprocessing.window is not None else values / preprocessing.highest
    return preprocessing.to_model(rearrange(pixels, "b h w c -> b c h w")).contiguous()
