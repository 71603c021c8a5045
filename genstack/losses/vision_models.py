"""Vision models of transformers in a folder, frozen: DINOv2 and CLIP."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genstack import hub
from genstack.conditions.text_encoder import library, no_progress_bar
from genstack.errors import UserError


@dataclass(frozen=True)
class VisionModel:
    """A kind of vision model.

    Args:
        name: its name in messages.
        variable: environment variable that names a folder.
        classes: classes of transformers by `model_type` in config.json.
        example: a repository on the Hugging Face hub.
        mean: mean of pixels in [0, 1], by channel.
        deviation: standard deviation of pixels.
    """

    name: str
    variable: str
    classes: tuple[tuple[str, str], ...]
    example: str
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    @property
    def place(self) -> str:
        """Folder or `hf:` name in the environment variable."""
        place = os.environ.get(self.variable, "")
        if not place:
            raise UserError(
                f"no {self.name} is named; set {self.variable} to a folder with config.json and "
                f"model.safetensors, such as a download of {self.example}, or to hf:{self.example}"
            )
        return place

    def config(self, place: str) -> Mapping[str, Any]:
        """Content of config.json."""
        return read_config(self, place)

    def load(self, place: str) -> Any:
        """Load the model in a folder, frozen.

        Raises:
            UserError: there is none.
        """
        kind, folder = dict(self.classes)[self.config(place)["model_type"]], find_folder(place)
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
                raise UserError(f"{self.name}: transformers cannot load {folder}: {reason}") from error
        if missing := sorted(map(str, {*info["missing_keys"], *info["mismatched_keys"]})):
            raise UserError(f"{self.name}: {folder} has no weights for {', '.join(missing[:5])}")
        return network.eval().requires_grad_(False)

    def standardize(self, pixels: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 3 H W"]:
        """Subtract the mean from pixels in [0, 1], and divide by the deviation."""
        mean, deviation = (
            torch.tensor(each, device=pixels.device).view(3, 1, 1) for each in (self.mean, self.deviation)
        )
        return (pixels - mean) / deviation


@cache
def find_folder(place: str) -> Path:
    """Folder on this machine; `hf:user/name` is downloaded once."""
    return hub.fetch(place) if hub.is_hub_name(place) else Path(place).expanduser()


@cache
def read_config(model: VisionModel, place: str) -> dict[str, Any]:
    """Read config.json of a model."""
    folder, kinds = find_folder(place), dict(model.classes)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] in kinds:
            return config
    except (OSError, ValueError, LookupError, TypeError):
        pass
    raise UserError(f"{model.name}: {folder} has no config.json with a model_type of {' or '.join(kinds)}")
