"""Files of strangers, whatever wrote them: torch (as a zip, or as before version 1.6), or safetensors.

Reading one builds the structure of the file alone. Numbers are read when they are asked for, after the file
has shown that it holds as many.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from genstack.checkpoints.archives import LegacyFile, ZipArchive
from genstack.checkpoints.pickles import Inert
from genstack.checkpoints.stored import Stored, clear
from genstack.errors import UserError
from genstack.hub import DIFFUSERS

DEEPEST = 64  # modules within modules
HALVES = (("encoder.pkl", "decoder.pkl"), ("encoder.pt", "decoder.pt"), ("encoder.pth", "decoder.pth"))
WRAPPERS = ("state_dict", "model", "module")


@dataclass(frozen=True)
class File:
    """What a file holds.

    Args:
        path: where it lies.
        data: plain data, in which tensors are `Stored`.
        config: settings that its project keeps beside it (`config.json`); empty without.
    """

    path: Path
    data: Any
    config: Mapping[str, Any]

    def tensors(self, part: str = "") -> dict[str, Stored]:
        """The named tensors of a model in the file.

        Args:
            part: the entry that holds them; by default the first of `state_dict`, `model`, `module`, or all.

        Raises:
            UserError: there are none.
        """
        found = self.data
        names = (part,) if part else WRAPPERS
        if isinstance(found, dict):
            found = next((found[name] for name in names if isinstance(found.get(name), dict | Inert)), found)
        tensors = dict(named_tensors(found))
        if (part and found is self.data) or not tensors:
            where = f" under {part!r}" if part else ""
            raise UserError(f"{self.path} holds no named tensors{where}; it is no checkpoint of a model")
        if all(key.startswith("module.") for key in tensors):  # written by distributed training
            tensors = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
        return tensors


def named_tensors(data: Any) -> Iterator[tuple[str, Stored]]:
    """Tensors of a dictionary, or of a pickled module and those inside it, by torch's names."""
    waiting, seen = [(data, "", 0)], {id(data)}
    while waiting:
        item, prefix, depth = waiting.pop()
        if depth > DEEPEST:
            raise UserError(f"modules lie more than {DEEPEST} deep in each other")
        inside = item.state if isinstance(item, Inert) and isinstance(item.state, dict) else {}
        for named in (item, inside.get("_parameters"), inside.get("_buffers")):
            for name, value in named.items() if isinstance(named, dict) else ():
                if isinstance(name, str) and isinstance(value, Stored):
                    yield prefix + name, value
        children = inside.get("_modules")
        for name, child in children.items() if isinstance(children, dict) else ():
            if isinstance(name, str) and isinstance(child, Inert) and id(child) not in seen:
                seen.add(id(child))
                waiting.append((child, f"{prefix}{name}.", depth + 1))


def read(path: Path) -> File:
    """The structure of a checkpoint, or of a folder with `config.json` and a checkpoint, as of diffusers.

    Raises:
        UserError: it is damaged, of an unknown kind, or asks for more memory than the file justifies.
    """
    if path.is_dir():
        return read_folder(path)
    with clear(path):
        with path.open("rb") as file:
            head = file.read(16)
        if head[:4] == b"PK\x03\x04":
            return File(path, ZipArchive(path).data, {})
        if path.suffix == ".safetensors" or head[8:9] == b"{":
            return File(path, read_safetensors(path), {})
        if head[:1] == b"\x80":
            return File(path, LegacyFile(path).data, {})
    raise UserError(
        f"{path} is no checkpoint: neither a file of torch (.ckpt, .pt, .pth, .bin, .pkl) nor safetensors, "
        f"or damaged at its start"
    )


def read_folder(folder: Path) -> File:
    """A model as diffusers saves it, or one whose encoder and decoder are two files."""
    for names in HALVES:
        if all((folder / name).is_file() for name in names):
            return read_halves(folder, names)
    settings = folder / "config.json"
    weights = next((folder / name for name in DIFFUSERS if (folder / name).is_file()), None)
    if not settings.is_file() or weights is None:
        raise UserError(
            f"{folder} is neither a run, nor a folder of diffusers (config.json and {DIFFUSERS[0]}), "
            f"nor one with {HALVES[0][0]} and {HALVES[0][1]}"
        )
    with clear(settings):
        if settings.stat().st_size > 2**20:
            raise UserError("larger than a megabyte; settings are smaller")
        config = json.loads(settings.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise UserError("holds no settings")
    return File(folder, read(weights).data, config)


def read_halves(folder: Path, names: tuple[str, str]) -> File:
    """An encoder and a decoder, each a file: their tensors under these two names."""
    tensors: dict[str, Stored] = {}
    for name in names:
        half = read(folder / name).tensors()
        tensors |= {f"{Path(name).stem}.{inner}": stored for inner, stored in half.items()}
    return File(folder, tensors, {})


def read_safetensors(path: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file; the library checks the header against the file."""

    def later(key: str) -> Callable[[], Tensor]:
        def get() -> Tensor:
            with clear(path), safe_open(path, framework="pt") as file:
                return file.get_tensor(key)

        return get

    with safe_open(path, framework="pt") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)
        return {
            key: Stored(tuple(part.get_shape()), part.get_dtype(), later(key)) for key, part in slices.items()
        }
