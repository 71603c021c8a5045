"""Checkpoints of other projects: files of torch, old and new, safetensors, and folders of them.

Reading one builds its structure alone. Tensors are views of the mapped file, which loads what is read.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from genstack.checkpoints.damage import damage_errors
from genstack.checkpoints.pickles import Inert, TorchFile
from genstack.errors import UserError
from genstack.hub import DIFFUSERS

DEEPEST = 64  # modules within modules
HALVES = (("encoder.pkl", "decoder.pkl"), ("encoder.pt", "decoder.pt"), ("encoder.pth", "decoder.pth"))
WRAPPERS = ("state_dict", "model", "module")


@dataclass(frozen=True)
class File:
    """Content of a checkpoint.

    Args:
        path: of the file or folder.
        data: plain data and tensors.
        config: settings that its project keeps beside it (`config.json`); empty without.
        verify: raises for a tensor whose numbers are damaged.
    """

    path: Path
    data: Any
    config: Mapping[str, Any]
    verify: Callable[[Tensor], None] = lambda _: None

    def tensors(self, part: str = "") -> dict[str, Tensor]:
        """Return the named tensors of a model in the file.

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
            raise UserError(f"{self.path} is not a checkpoint of a model: no named tensors{where}")
        for tensor in tensors.values():
            self.verify(tensor)
        if all(key.startswith("module.") for key in tensors):  # written by distributed training
            tensors = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
        return tensors


def named_tensors(data: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a dictionary, or of a pickled module and its children, by torch's names."""
    waiting, seen = [(data, "", 0)], {id(data)}
    while waiting:
        item, prefix, depth = waiting.pop()
        if depth > DEEPEST:
            raise UserError(f"modules are nested more than {DEEPEST} deep")
        inside = item.state if isinstance(item, Inert) and isinstance(item.state, dict) else {}
        for named in (item, inside.get("_parameters"), inside.get("_buffers")):
            for name, value in named.items() if isinstance(named, dict) else ():
                if isinstance(name, str) and isinstance(value, Tensor):
                    yield prefix + name, value
        children = inside.get("_modules")
        for name, child in children.items() if isinstance(children, dict) else ():
            if isinstance(name, str) and isinstance(child, Inert) and id(child) not in seen:
                seen.add(id(child))
                waiting.append((child, f"{prefix}{name}.", depth + 1))


def read(path: Path) -> File:
    """Read the structure of a checkpoint, or of a folder with `config.json` and a checkpoint.

    Raises:
        UserError: it is damaged, of an unknown kind, or asks for more memory than the file justifies.
    """
    if path.is_dir():
        return read_folder(path)
    with damage_errors(path):
        with path.open("rb") as file:
            head = file.read(16)
        if path.suffix == ".safetensors" or head[8:9] == b"{":
            return File(path, read_safetensors(path), {})
        if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
            found = TorchFile(path)
            return File(path, found.data, {}, found.verify)
    raise UserError(
        f"{path} is not a checkpoint: neither torch (.ckpt, .pt, .pth, .bin, .pkl) nor safetensors, "
        f"or damaged at its start"
    )


def read_folder(folder: Path) -> File:
    """Read a folder of diffusers, or one with encoder and decoder in two files."""
    for names in HALVES:
        if all((folder / name).is_file() for name in names):
            return read_halves(folder, names)
    settings = folder / "config.json"
    weights = next((folder / name for name in DIFFUSERS if (folder / name).is_file()), None)
    if not settings.is_file() or weights is None:
        raise UserError(
            f"{folder} is not a run, nor a folder of diffusers (config.json and {DIFFUSERS[0]}), "
            f"nor one with {HALVES[0][0]} and {HALVES[0][1]}"
        )
    with damage_errors(settings):
        if settings.stat().st_size > 2**20:
            raise UserError("larger than a megabyte; settings are smaller")
        config = json.loads(settings.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise UserError("expected a JSON object of settings")
    found = read(weights)
    return File(folder, found.data, config, found.verify)


def read_halves(folder: Path, names: tuple[str, str]) -> File:
    """Read an encoder and a decoder, each from a file: their tensors under these two names."""
    tensors: dict[str, Tensor] = {}
    for name in names:
        half = read(folder / name).tensors()
        tensors |= {f"{Path(name).stem}.{inner}": tensor for inner, tensor in half.items()}
    return File(folder, tensors, {})


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Map the tensors of a safetensors file; the library compares its header with the file."""
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)
