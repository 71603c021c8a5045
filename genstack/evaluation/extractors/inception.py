"""Features of the Inception network that FID is defined by (arXiv:1512.00567), through torch-fidelity."""

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from genstack.data.images import to_uint8
from genstack.errors import UserError
from genstack.evaluation.extractor import Extractor, View
from genstack.losses.features import colour

FILE = "weights-inception-2015-12-05-6726825d.pth"  # its name ends in the beginning of its hash
SHA256 = "6726825d"
FROM = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"


class InceptionFeatures(Extractor):
    """The 2,048 numbers of TensorFlow's Inception of 2015, which published values of FID are made of."""

    distance, kernel, score = "FID", "KID", "InceptionScore"

    def __init__(self, device: torch.device | str):
        path = find()
        self.device = torch.device(device)
        with path.open("rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if not self.sha256.startswith(SHA256):
            raise UserError(f"{path} has been changed: its hash is {self.sha256[:8]}; fetch it from {FROM}")
        check_plain(path)
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        read = ["2048", "logits_unbiased"]
        self.network = FeatureExtractorInceptionV3(
            "inception", read, feature_extractor_weights_path=str(path)
        )
        self.network.to(self.device)

    @property
    def told(self) -> dict[str, Any]:
        return {
            "network": "Inception v3 of 2015 by torch-fidelity, 2,048 features",
            "file_sha256": self.sha256,
            "resize": "bilinear as TensorFlow 1 has it, to 299 x 299",
        }

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b c H W"]) -> View:
        pixels = rearrange(to_uint8(colour(images)), "b h w c -> b c h w").contiguous()
        features, logits = self.network(pixels.to(self.device))
        return View(features.float().cpu(), logits.double().softmax(1).float().cpu())


def find() -> Path:
    """The file of the weights: in $GENSTACK_WEIGHTS, our cache, or torch hub's.

    Raises:
        UserError: it is nowhere, or torch-fidelity is not installed.
    """
    ours = os.environ.get("GENSTACK_WEIGHTS")
    folders = [Path(ours)] if ours else [Path.home() / ".cache" / "genstack" / "weights"]
    folders.append(Path(torch.hub.get_dir()) / "checkpoints")
    path = next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)
    if path is None:
        raise UserError(f"no Inception weights on this machine; put {FROM} into {folders[0]}")
    if find_spec("torch_fidelity") is None:
        raise UserError("Inception needs torch-fidelity; pip install 'genstack-images[fid]'")
    return path


def check_plain(path: Path) -> None:
    """Refuse a file that holds more than tensors: torch-fidelity reads it without looking."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"{path} holds more than tensors, or is damaged; fetch it from {FROM}") from error
