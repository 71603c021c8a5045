"""Features of CLIP's image encoder (arXiv:2103.00020), for CMMD (arXiv:2401.09603)."""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from genstack.data.images import to_uint8
from genstack.evaluation.extractor import Extractor, Features
from genstack.losses.features import colour
from genstack.losses.vision_models import VisionModel
from genstack.pretrained import digest

CLIP = VisionModel(
    "CLIP",
    "GENSTACK_CLIP",
    (("clip", "CLIPVisionModelWithProjection"), ("clip_vision_model", "CLIPVisionModelWithProjection")),
    "openai/clip-vit-large-patch14-336",
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)


class CLIPFeatures(Extractor):
    """The image embedding of a CLIP of transformers, at unit length; CMMD has clip-vit-large-patch14-336.

    Its folder, or `hf:user/name`, is named by $GENSTACK_CLIP; without it the metrics are left out.
    """

    name = "CLIP"
    frechet, kid, score, mmd = "FD-CLIP", "KID-CLIP", "", "CMMD"

    def __init__(self, device: torch.device | str):
        self.device = torch.device(device)
        self.network = CLIP.load(CLIP.place)
        self.size = int(self.network.config.image_size)
        self.sha256 = digest(dict(self.network.state_dict()))
        self.network.to(self.device)

    @property
    def metadata(self) -> dict[str, Any]:
        config = self.network.config
        return {
            "network": f"image encoder of CLIP of transformers, {config.projection_dim:,} features of unit "
            f"length, patches of {config.patch_size}",
            "tensors_sha256": self.sha256,
            "resize": f"bicubic with antialiasing to {self.size} x {self.size}",
        }

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b c H W"]) -> Features:
        pixels = rearrange(to_uint8(colour(images)), "b h w c -> b c h w").float() / 255
        pixels = interpolate(pixels, (self.size, self.size), mode="bicubic", antialias=True)
        embedded = self.network(pixel_values=CLIP.standardize(pixels).to(self.device)).image_embeds
        return Features(normalize(embedded.float(), dim=-1).cpu(), None)
