"""DINOv2 (Oquab et al. 2023, arXiv:2304.07193), a frozen vision transformer whose features are semantic."""

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from genstack import hub
from genstack.conditions.text_encoder import library, no_progress_bar
from genstack.errors import UserError
from genstack.losses.features import Features, ImageFeatures

VARIABLE = "GENSTACK_DINOV2"  # names the folder where no other is named
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KINDS = {"dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"}


@dataclass(frozen=True)
class DINOv2(Features):
    """DINOv2 of transformers, such as facebook/dinov2-small; for discriminators and alignment.

    Args:
        folder: folder with config.json and model.safetensors, or `hf:user/name`, which is downloaded once;
            null for the one that $GENSTACK_DINOV2 names.
        size: shorter side after resizing, rounded to whole patches (14 pixels).
        layers: layers whose tokens are the maps, counted from 1; null for the last layer.
    """

    folder: str | None = None
    size: int = 112
    layers: tuple[int, ...] | None = None
    has_logits = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"size of DINOv2 must be at least 1, got {self.size}")
        if self.layers is not None and (not self.layers or min(self.layers) < 1):
            raise UserError(f"layers of DINOv2 must be numbers from 1 on, got {list(self.layers)}")

    @property
    def place(self) -> str:
        """The folder, with the default resolved."""
        return self.folder or default_place()

    @property
    def config(self) -> dict[str, Any]:
        """Content of config.json."""
        return read_config(self.place)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Layers whose tokens are the maps, with the default resolved."""
        depth = int(self.config["num_hidden_layers"])
        if self.layers is None:
            return (depth,)
        if max(self.layers) > depth:
            raise UserError(f"{self.place} has {depth} layers, got layers {list(self.layers)}")
        return self.layers

    @property
    def widths(self) -> tuple[int, ...]:
        return (int(self.config["hidden_size"]),) * len(self.numbers)

    def grids(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        patch, scale = int(self.config["patch_size"]), self.size / min(height, width)
        grid = max(1, round(height * scale / patch)), max(1, round(width * scale / patch))
        return (grid,) * len(self.numbers)

    def build(self) -> nn.Module:
        return DINOv2Network(load_network(self.place), self).eval().requires_grad_(False)


class DINOv2Network(nn.Module):
    """Network of `DINOv2`: images in [-1, 1] to tokens of some layers, each normalized as the last ones are.

    Args:
        network: model of transformers.
        plan: settings.
    """

    def __init__(self, network: Any, plan: DINOv2):
        super().__init__()
        self.network, self.plan = network, plan
        self.numbers, self.patch = plan.numbers, int(plan.config["patch_size"])

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> ImageFeatures:
        height, width = self.plan.grids(*images.shape[-2:])[0]
        size = height * self.patch, width * self.patch
        pixels = interpolate((images + 1) / 2, size, mode="bicubic", antialias=True, align_corners=False)
        outputs = self.network(pixel_values=standardize(pixels), output_hidden_states=True)
        maps = []
        for number in self.numbers:
            tokens = self.network.layernorm(outputs.hidden_states[number])[:, -height * width :]
            maps.append(rearrange(tokens, "b (h w) d -> b d h w", h=height))
        return ImageFeatures(maps, outputs.pooler_output, None)


def standardize(pixels: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 3 H W"]:
    """Subtract the mean of ImageNet's pixels in [0, 1], and divide by their deviation."""
    mean, deviation = (torch.tensor(each, device=pixels.device).view(3, 1, 1) for each in (MEAN, DEVIATION))
    return (pixels - mean) / deviation


def default_place() -> str:
    """Folder or `hf:` name in $GENSTACK_DINOV2."""
    place = os.environ.get(VARIABLE, "")
    if not place:
        raise UserError(
            f"no DINOv2 is named; set {VARIABLE} to a folder with config.json and model.safetensors, "
            f"such as a download of facebook/dinov2-large, or to hf:facebook/dinov2-large"
        )
    return place


@cache
def find_folder(place: str) -> Path:
    """Folder on this machine; `hf:user/name` is downloaded once."""
    return hub.fetch(place) if hub.is_hub_name(place) else Path(place).expanduser()


@cache
def read_config(place: str) -> dict[str, Any]:
    """Read config.json of a DINOv2."""
    folder = find_folder(place)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] in KINDS:
            return config
    except (OSError, ValueError, LookupError, TypeError):
        pass
    raise UserError(f"DINOv2: {folder} has no config.json with a model_type of {' or '.join(KINDS)}")


def load_network(place: str) -> Any:
    """Load the model of transformers in a folder, frozen."""
    kind, folder = KINDS[read_config(place)["model_type"]], find_folder(place)
    transformers = library()
    with torch.random.fork_rng(devices=[]), no_progress_bar(transformers):
        try:
            network, info = getattr(transformers, kind).from_pretrained(
                str(folder),
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
            )
        except Exception as error:  # the library raises many kinds of errors for files it cannot read
            reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
            raise UserError(f"DINOv2: transformers cannot load {folder}: {reason}") from error
    if missing := sorted(map(str, {*info["missing_keys"], *info["mismatched_keys"]})):
        raise UserError(f"DINOv2: {folder} has no weights for {', '.join(missing[:5])}")
    return network.eval().requires_grad_(False)
