"""Checkpoints of other projects: files of torch and safetensors, and folders of them.

Reading builds only the structure; tensors are views of the memory-mapped file.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from genstack.checkpoints.damage import damage_errors, file_errors
from genstack.checkpoints.mapped import drop_pages, map_safetensors
from genstack.checkpoints.pickles import SUFFIXES, Inert, TorchFile
from genstack.errors import UserError
from genstack.hub import DIFFUSERS, SUBFOLDERS, weights_file

DEEPEST = 64  # nested modules
HALVES = (("encoder.pkl", "decoder.pkl"), ("encoder.pt", "decoder.pt"), ("encoder.pth", "decoder.pth"))
WRAPPERS = ("state_dict", "model", "module", "model_state_dict")
POINTER = b"version https://"  # begin of a pointer of Git LFS
LARGEST = 2**20  # bytes of a config.json
LARGEST_INDEX = 2**26  # bytes of the index of shards

Value = TypeVar("Value")


@dataclass(frozen=True)
class File:
    """Content of a checkpoint.

    Args:
        path: path of the file or folder.
        data: plain data and tensors.
        config: content of `config.json`; empty without.
        verify: raises UserError for a tensor with damaged numbers.
        shards: file of each tensor by name; empty if `data` holds the tensors.
        prefix: prefix of the tensors to read; others are ignored.
    """

    path: Path
    data: Any
    config: Mapping[str, Any]
    verify: Callable[[Tensor], None] = lambda _: None
    shards: Mapping[str, Path] = field(default_factory=dict)
    prefix: str = ""

    def names(self) -> set[str]:
        """Return the names of the tensors, without opening shards."""
        return set(plain_names(self.shards or self.stored_tensors()))

    def tensors(self, part: str = "") -> dict[str, Tensor]:
        """Return the named tensors of a model in the file.

        Args:
            part: key of the entry with the tensors; by default the first of `WRAPPERS`, or the whole file.
        """
        if self.shards:
            return self._read_shards()
        tensors = {
            name.removeprefix(self.prefix): tensor
            for name, tensor in self.stored_tensors(part).items()
            if name.startswith(self.prefix)
        }
        with file_errors(self.path):
            for tensor in tensors.values():
                self.verify(tensor)
                drop_pages(tensor)
        return tensors

    def stored_tensors(self, part: str = "") -> dict[str, Tensor]:
        """Return all named tensors, whatever the prefix, without reading their numbers."""
        found = self.data
        names = (part,) if part else WRAPPERS
        if isinstance(found, dict):
            found = next((found[name] for name in names if isinstance(found.get(name), dict | Inert)), found)
        tensors = plain_names(dict(named_tensors(found)))
        if (part and found is self.data) or not tensors:
            where = f" under {part!r}" if part else ""
            raise UserError(f"{self.path} is not a checkpoint of a model: no named tensors{where}")
        return tensors

    def _read_shards(self) -> dict[str, Tensor]:
        """Return the tensors of the shards that contain names with the prefix."""
        wanted = {
            name: path for name, path in plain_names(self.shards).items() if name.startswith(self.prefix)
        }
        tensors: dict[str, Tensor] = {}
        for path in sorted(set(wanted.values())):
            tensors |= replace(read(path), prefix=self.prefix).tensors()
        if missing := {name.removeprefix(self.prefix) for name in wanted} - tensors.keys():
            raise UserError(f"{self.path} is incomplete: no shard holds {sorted(missing)[0]}")
        return tensors


def plain_names(named: Mapping[str, Value]) -> dict[str, Value]:
    """Remove prefixes of wrappers (`module.`, `_orig_mod.`) from names, if they stay distinct."""
    plain = {re.sub(r"(?<![^.])(?:module\.|_orig_mod\.)+", "", name): value for name, value in named.items()}
    return plain if len(plain) == len(named) else dict(named)


def named_tensors(data: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors of a dictionary, or of a pickled module and its children, with torch's names."""
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
    """Read the structure of a checkpoint, or of a folder with `config.json` and a checkpoint."""
    if not path.exists():
        raise UserError(f"{path} not found; give a published file or folder")
    if path.is_dir():
        return read_folder(path)
    with damage_errors(path):
        with path.open("rb") as file:
            head = file.read(16)
        if head[8:9] == b"{" or (path.suffix == ".safetensors" and not head.startswith(POINTER)):
            return File(path, map_safetensors(path), {})
        if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
            found = TorchFile(path)
            return File(path, found.data, {}, found.verify)
        if head.startswith(POINTER):
            raise UserError("it is a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`")
    raise UserError(
        f"{path} is damaged or not a checkpoint; expected torch (.ckpt, .pt, .pth, .bin, .pkl) or safetensors"
    )


def read_folder(folder: Path) -> File:
    """Read a folder with weights and `config.json`, a pipeline with one, or an encoder and a decoder."""
    for names in HALVES:
        if all((folder / name).is_file() for name in names):
            return read_halves(folder, names)
    weights = weights_file(path.name for path in folder.iterdir() if path.is_file())
    if weights is None:
        inner = [folder / name for name in SUBFOLDERS if (folder / name).is_dir()]
        if len(inner) == 1:
            return read_folder(inner[0])
        if inner:
            raise UserError(f"{folder} holds several models; give one of {', '.join(map(str, inner))}")
    settings = folder / "config.json"
    loose = sorted(path.name for path in folder.iterdir() if path.suffix in SUFFIXES)
    if weights is None and loose:
        raise UserError(
            f"{folder} has no {DIFFUSERS[0]} or index of shards; give a file of it, such as "
            f"{folder / loose[0]}"
        )
    if weights is None or (weights.startswith("diffusion_") and not settings.is_file()):
        raise UserError(
            f"{folder} holds no model; expected a run, a folder of diffusers "
            f"(config.json and {DIFFUSERS[0]}), or {HALVES[0][0]} and {HALVES[0][1]}"
        )
    config = read_json(settings, LARGEST) if settings.is_file() else {}
    if weights.endswith(".json"):
        return File(folder, {}, config, shards=read_index(folder / weights))
    return replace(read(folder / weights), path=folder, config=config)


def read_index(path: Path) -> dict[str, Path]:
    """Return the shard of each tensor from an index such as `model.safetensors.index.json`."""
    shards = read_json(path, LARGEST_INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UserError(f"{path} is not an index of shards: no weight_map")
    for shard in set(map(str, shards.values())):
        if Path(shard).name != shard or not (path.parent / shard).is_file():
            raise UserError(f"{path} names a shard that is not in its folder: {shard[:80]}")
    return {name: path.parent / str(shard) for name, shard in shards.items()}


def read_json(path: Path, most: int) -> dict[str, Any]:
    """Read a JSON object."""
    with damage_errors(path):
        if path.stat().st_size > most:
            raise UserError(f"it is larger than {most} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise UserError("expected a JSON object")
    return found


def is_published(folder: Path) -> bool:
    """Return True for a folder that may hold weights of another project."""
    places = (folder, *(folder / name for name in SUBFOLDERS))
    return any((folder / encoder).is_file() for encoder, _ in HALVES) or any(
        weights_file(path.name for path in place.iterdir()) for place in places if place.is_dir()
    )


def read_halves(folder: Path, names: tuple[str, str]) -> File:
    """Read an encoder and a decoder from two files; their names become prefixes."""
    tensors: dict[str, Tensor] = {}
    for name in names:
        half = read(folder / name).tensors()
        tensors |= {f"{Path(name).stem}.{inner}": tensor for inner, tensor in half.items()}
    return File(folder, tensors, {})
