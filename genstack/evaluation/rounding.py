"""Images as they are once they have been saved: both sides of a comparison go through the same rounding."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from genstack.data.images import Preprocessing


def as_saved(images: Float[Tensor, "b c H W"], preprocessing: Preprocessing) -> Float[Tensor, "b c H W"]:
    """What `data.framing.load` reads back from the PNG files that `data.images.save` writes."""
    values = torch.from_numpy(preprocessing.to_file(images).astype("float32"))
    read = values if preprocessing.window is not None else values / preprocessing.highest
    return preprocessing.to_model(rearrange(read, "b h w c -> b c h w")).contiguous()
