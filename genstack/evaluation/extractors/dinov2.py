"""Features of DINOv2 (arXiv:2304.07193), whose distances agree with human judgement (arXiv:2306.04675)."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from genstack import hub
from genstack.conditions.text_encoder import library, no_progress_bar
from genstack.data.images import to_uint8
from genstack.errors import UserError
from genstack.evaluation.extractor import Extractor, Features
from genstack.losses.features import colour
from genstack.pretrained import digest

VARIABLE = "GENSTACK_DINOV2"
SIDE = 224  # of the images that the network reads
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KINDS = {"dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"}


class DINOv2Features(Extractor):
    """The normalized class token of a DINOv2 of transformers, such as facebook/dinov2-large.

    Its folder, or `hf:user/name`, is named by $GENSTACK_DINOV2; without it the metrics are left out.
    """

    name = "DINOv2"
    frechet, kid, score = "FD-DINOv2", "KID-DINOv2", ""

    def __init__(self, device: torch.device | str):
        place = os.environ.get(VARIABLE, "")
        if not place:
            raise UserError(
                f"no DINOv2 is named; set {VARIABLE} to a folder with config.json and model.safetensors, "
                f"such as a download of facebook/dinov2-large, or to hf:facebook/dinov2-large"
            )
        self.device = torch.device(device)
        self.network = load_network(hub.fetch(place) if hub.is_hub_name(place) else Path(place).expanduser())
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
    mean, deviation = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, DEVIATION))
    return (pixels - mean) / deviation


def load_network(folder: Path) -> Any:
    """Load the network in a folder.

    Raises:
        UserError: there is none.
    """
    settings = folder / "config.json"
    try:
        kind = json.loads(settings.read_text(encoding="utf-8"))["model_type"]
        name = KINDS[kind]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{VARIABLE}: {folder} has no config.json with a model_type of {' or '.join(KINDS)}"
        ) from error
    transformers = library()
    with torch.random.fork_rng(devices=[]), no_progress_bar(transformers):
        try:
            network, info = getattr(transformers, name).from_pretrained(
                str(folder),
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
            )
        except Exception as error:  # the library raises many kinds of errors for files it cannot read
            reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
            raise UserError(f"{VARIABLE}: transformers cannot load {folder}: {reason}") from error
    if missing := sorted(map(str, {*info["missing_keys"], *info["mismatched_keys"]})):
        raise UserError(f"{VARIABLE}: {folder} has no weights for {', '.join(missing[:5])}")
    return network.eval().requires_grad_(False)
