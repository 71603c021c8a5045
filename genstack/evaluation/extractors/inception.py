"""Features of the Inception network of FID (arXiv:1512.00567), by torch-fidelity."""

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
from genstack.evaluation.extractor import Extractor, Features
from genstack.losses.features import colour

FILE = "weights-inception-2015-12-05-6726825d.pth"
SPATIAL = 7  # channels of spatial features
SHA256 = "6726825d"  # its first digits, as in the file's name
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"


class InceptionFeatures(Extractor):
    """The 2,048 features of TensorFlow's Inception of 2015, which published FIDs use.

    Spatial features are 7 channels of the first convolution of `mixed_6`, at 17 x 17 places, as in ADM.
    """

    name = "Inception"
    frechet, kid, score = "FID", "KID", "InceptionScore"

    def __init__(self, device: torch.device | str, spatial: bool = False):
        path = find_weights()
        self.device = torch.device(device)
        with path.open("rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if not self.sha256.startswith(SHA256):
            raise UserError(
                f"invalid {path}: expected SHA-256 {SHA256}, got {self.sha256[:8]}; download it from {URL}"
            )
        check_tensors(path)
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        read = ["2048", "logits_unbiased"]
        self.network = FeatureExtractorInceptionV3(
            "inception", read, feature_extractor_weights_path=str(path)
        )
        self.network.to(self.device)
        self.spatial: list[Tensor] | None = [] if spatial else None
        if spatial:
            self.network.Mixed_6d.branch1x1.register_forward_hook(self._keep)

    @property
    def metadata(self) -> dict[str, Any]:
        return {
            "network": "Inception v3 of 2015 by torch-fidelity, 2,048 features",
            "file_sha256": self.sha256,
            "resize": "bilinear as TensorFlow 1 has it, to 299 x 299",
        }

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b c H W"]) -> Features:
        pixels = rearrange(to_uint8(colour(images)), "b h w c -> b c h w").contiguous()
        features, logits = self.network(pixels.to(self.device))
        spatial = None if self.spatial is None else self.spatial.pop()
        return Features(features.float().cpu(), logits.double().softmax(1).float().cpu(), spatial)

    def _keep(self, _: Any, __: Any, output: Float[Tensor, "b c h w"]) -> None:
        """Keep the spatial features of a batch."""
        assert self.spatial is not None
        self.spatial.append(rearrange(output[:, :SPATIAL], "b c h w -> b (h w c)").float().cpu())


def find_weights() -> Path:
    """Find the weights in $GENSTACK_WEIGHTS (by default our cache), or in torch hub's cache."""
    ours = os.environ.get("GENSTACK_WEIGHTS")
    folders = [Path(ours).expanduser()] if ours else [Path.home() / ".cache" / "genstack" / "weights"]
    folders.append(Path(torch.hub.get_dir()) / "checkpoints")
    path = next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)
    if path is None:
        raise UserError(f"Inception weights not found; put {URL} into {folders[0]}")
    if find_spec("torch_fidelity") is None:
        raise UserError("Inception needs torch-fidelity: pip install 'genstack-images[fid]'")
    return path


def check_tensors(path: Path) -> None:
    """Reject a file with anything but tensors, since torch-fidelity unpickles it unchecked."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(
            f"invalid {path}: it is damaged or holds more than tensors; download it from {URL}"
        ) from error
