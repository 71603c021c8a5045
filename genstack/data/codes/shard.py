"""A shard of an archive: a safetensors file with codes (`images views n`), labels, keys and captions.

It also holds the sides of the pictures and any condition images. Arrays are memory-mapped.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from genstack.atomic import atomic_path
from genstack.data.codes.header import Header, ShardInfo
from genstack.errors import UserError

#: Types by their names in safetensors.
TYPES = {
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "U64": np.uint64,
    "F16": np.float16,
    "I32": np.int32,
    "I64": np.int64,
}
Arrays = Mapping[str, np.ndarray]


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"{number:06d}.safetensors"


def write(path: Path, arrays: Arrays, plan: str, skipped: Mapping[str, str]) -> None:
    """Write a shard."""
    metadata = {"plan": plan, "skipped": dict(skipped), "checksum": checksum(arrays, plan, skipped)}
    with atomic_path(path) as partial:
        save_file(dict(arrays), partial, metadata={"genstack": json.dumps(metadata)})


def checksum(arrays: Arrays, plan: str, skipped: Mapping[str, str]) -> str:
    """Hash everything in a shard."""
    digest = blake2b(json.dumps([plan, skipped], sort_keys=True).encode(), digest_size=16)
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def pack(words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Pack texts into one array of bytes; the second array holds the end of each."""
    parts = [word.encode(errors="surrogateescape") for word in words]
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    return np.frombuffer(b"".join(parts), np.uint8), ends


class Shard:
    """A shard whose shapes fit the header of its archive; `verify` checks its content."""

    def __init__(self, path: Path, header: Header):
        self.path, self.header = path, header
        try:
            with safe_open(path, framework="np") as file:  # checks the header against the length of the file
                self.metadata = json.loads((file.metadata() or {}).get("genstack", "null"))
            whole = np.asarray(np.memmap(path, np.uint8, "r"))
            length = int.from_bytes(whole[:8].tobytes(), "little")
            entries = json.loads(whole[8 : 8 + length].tobytes())
            entries.pop("__metadata__", None)
            self.arrays = {
                name: whole[8 + length :][slice(*info["data_offsets"])]
                .view(TYPES[info["dtype"]])
                .reshape(info["shape"])
                for name, info in entries.items()
            }
            self.checksum = str(self.metadata["checksum"])
            self.skipped = {str(key): str(self.metadata["skipped"][key]) for key in self.metadata["skipped"]}
        except (SafetensorError, ValueError, KeyError, TypeError, RecursionError, OSError) as error:
            reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
            raise UserError(f"{path} is missing, damaged or incomplete ({reason}); {REMEDY}") from error
        if self.metadata.get("plan") != header.plan:
            raise UserError(f"{path} belongs to another archive than {path.parent}; {REMEDY}")
        self.check_shapes()

    def __len__(self) -> int:
        return len(self.arrays["labels"])

    @property
    def info(self) -> ShardInfo:
        """Entry of this shard in the header of the archive."""
        return ShardInfo(len(self), self.checksum)

    def check_shapes(self) -> None:
        """Check names, types and shapes of the arrays against the header."""
        labels = self.arrays.get("labels", np.empty(()))
        count = len(labels) if labels.ndim == 1 else -1
        views, storage, image = len(self.header.views), self.header.storage, self.header.preprocessing.shape
        expected: dict[str, tuple[type | np.dtype, tuple[int | None, ...]]] = {
            storage.name: (storage.dtype, (count, views, *storage.shape)),
            "labels": (np.int32, (count,)),
            "sides": (np.int32, (count, 2)),
            "keys": (np.uint8, (None,)),
            "key_ends": (np.int64, (count,)),
        }
        if "captions" in self.arrays:
            expected |= {"captions": (np.uint8, (None,)), "caption_ends": (np.int64, (count,))}
        if self.header.condition_images:
            expected["condition_images"] = (np.uint8, (count, views, *image))
        for name in expected.keys() | self.arrays.keys():
            if not (name in expected and name in self.arrays and matches(self.arrays[name], *expected[name])):
                raise UserError(f"{self.path}: {name} does not match the header; {REMEDY}")
        for ends, text in (("key_ends", "keys"), ("caption_ends", "captions")):
            if ends in self.arrays and not valid_ends(self.arrays[ends], len(self.arrays[text])):
                raise UserError(f"{self.path}: {text} do not match their ends; {REMEDY}")

    def keys(self, rows: Sequence[int]) -> list[str]:
        """Keys of images."""
        return self.texts("keys", "key_ends", rows)

    def captions(self, rows: Sequence[int]) -> list[str]:
        """Captions of images, or else the names of their classes."""
        if "captions" in self.arrays:
            return self.texts("captions", "caption_ends", rows)
        names = self.header.classes
        return [names[self.arrays["labels"][row]] if names else "" for row in rows]

    def texts(self, name: str, ends: str, rows: Sequence[int]) -> list[str]:
        """Decode packed texts."""
        content, stops = self.arrays[name], self.arrays[ends]
        starts = (0 if row == 0 else stops[row - 1] for row in rows)
        return [
            content[start : stops[row]].tobytes().decode(errors="surrogateescape")
            for start, row in zip(starts, rows, strict=True)
        ]

    def verify(self, expected: str) -> None:
        """Read the whole shard, and check its content against a checksum."""
        found = checksum(self.arrays, self.header.plan, self.skipped)
        storage = self.header.storage
        values, labels, sides = (self.arrays[name] for name in (storage.name, "labels", "sides"))
        if found != expected or self.checksum != expected:
            raise UserError(f"{self.path} is damaged: expected checksum {expected}, got {found}; {REMEDY}")
        if len(self) and (
            not storage.valid(values)
            or not 0 <= labels.min() <= labels.max() < max(1, len(self.header.classes))
            or sides.min() < 1
        ):
            raise UserError(f"{self.path} holds {storage.name} or labels that are out of range; {REMEDY}")


REMEDY = "delete that file and codes.json, and repeat `genstack encode` to write it again"


def matches(array: np.ndarray, dtype: type | np.dtype, shape: tuple[int | None, ...]) -> bool:
    """Return True if an array has this type and shape; None stands for any length."""
    return (
        array.dtype == dtype
        and array.ndim == len(shape)
        and all(wanted in (None, side) for wanted, side in zip(shape, array.shape, strict=True))
    )


def valid_ends(ends: np.ndarray, length: int) -> bool:
    """Return True for the ends of texts that have `length` bytes in all."""
    whole = np.concatenate([[0], ends, [length]])
    return bool((np.diff(whole) >= 0).all() and (len(ends) == 0 or ends[-1] == length))
