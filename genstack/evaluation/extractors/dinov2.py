"""Features of DINOv2 (arXiv:2304.07193), whose distances agree with human judgement (arXiv:2306.04675)."""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from genstack.data.images import to_uint8
from genstack.evaluation.extractor import Extractor, Features
from genstack.losses.dinov2 import MODEL
from genstack.losses.features import colour
from genstack.pretrained import digest

SIDE = 224  # of the images that the network reads


class DINOv2Features(Extractor):
    """The normalized class token of a DINOv2 of transformers, such as facebook/dinov2-large.

    Its folder, or `hf:user/name`, is named by $GENSTACK_DINOV2; without it the metrics are left out.
    """

    name = "DINOv2"
    frechet, kid, score = "FD-DINOv2", "KID-DINOv2", ""

    def __init__(self, device: torch.device | str):
        self.device = torch.device(device)
        self.network = MODEL.load(MODEL.place)
        self.sha256 = digest(dict(self.network.state_dict()))
        self.network.to(self.device)

    @property
    def metadata(self) -> dict[str, Any]:
        size = self.network.config.hidden_size
        return {
            "network": f"{type(self.network).__name__} of transformers, {size:,} features (class token)",
            "tensors_sha256": self.sha256,
            "resize": f"bicubic with antialiasing to {SIDE} x {SIDE}, rounded to 8 bits",
        }

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b c H W"]) -> Features:
        features = self.network(pixel_values=normalized(images).to(self.device)).pooler_output
        return Features(features.float().cpu(), None)


def normalized(images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b three=3 s s"]:
    """Images of the size and in the range that the network reads."""
    pixels = rearrange(to_uint8(colour(images)), "b h w c -> b c h w").float()
    pixels = interpolate(pixels, (SIDE, SIDE), mode="bicubic", antialias=True).round().clamp(0, 255) / 255
    return MODEL.standardize(pixels)
