"""Files of torch: a zip, or as before version 1.6. Numbers are read when a tensor asks for them.

Before that, every tensor is held against its storage, and every storage against the file.
"""

import math
import os
import zipfile
from abc import ABC, abstractmethod
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genstack.checkpoints.pickles import Inert, Record, Storage, unpickle
from genstack.checkpoints.stored import Stored, clear
from genstack.errors import UserError

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of torch's older files
VERSION = 1001  # the second
MOST_STRUCTURE = 2**28  # bytes of the pickle in a zip
MOST_SHARED = 8  # bytes of tensors for each byte of the file: some lie there under several names


class Storages(ABC):
    """The rows of numbers in a file, read once each when a tensor asks for them."""

    def __init__(self, path: Path):
        self.path = path
        self.bytes = path.stat().st_size
        self.loaded: dict[str, Tensor] = {}
        self.claimed = 0  # bytes of all tensors together

    @abstractmethod
    def fetch(self, storage: Storage) -> bytearray:
        """The bytes of a storage."""

    def tensor(self, record: Record) -> Tensor:
        """The tensor of a record that was checked."""
        with clear(self.path):
            storage = record.storage
            if storage.key not in self.loaded:
                content = self.fetch(storage)
                raw = (
                    torch.frombuffer(content, dtype=torch.uint8)
                    if content
                    else torch.empty(0, dtype=torch.uint8)
                )
                self.loaded[storage.key] = raw
            numbers = self.loaded[storage.key].view(record.dtype)
            return numbers.as_strided(record.shape, record.strides, record.offset)

    def stored(self, record: Record) -> Stored:
        """A record after it was held against its storage.

        Raises:
            UserError: it reaches out of it, or makes much of little.
        """
        storage, shape = record.storage, record.shape
        count = math.prod(shape)
        if storage.size * storage.dtype.itemsize > self.bytes:
            raise UserError(
                f"storage {storage.key} would hold {storage.size} numbers, "
                f"and the file has {self.bytes} bytes"
            )
        if len(shape) != len(record.strides) or min((record.offset, *shape, *record.strides)) < 0:
            raise UserError(
                f"a tensor has shape {shape}, strides {record.strides} and offset {record.offset}"
            )
        last = record.offset + sum(
            (side - 1) * step for side, step in zip(shape, record.strides, strict=True)
        )
        if count and last >= storage.size:
            raise UserError(f"a tensor of shape {shape} reaches out of its storage of {storage.size} numbers")
        if count > storage.size:
            raise UserError(f"a tensor of shape {shape} repeats the {storage.size} numbers of its storage")
        self.claimed += count * record.dtype.itemsize
        if self.claimed > MOST_SHARED * self.bytes:
            raise UserError(
                f"its tensors are {MOST_SHARED} times as large as the file, and share their numbers"
            )
        return Stored(shape, str(record.dtype), lambda: self.tensor(record))

    def plain(self, data: Any) -> Any:
        """The same data with `Stored` tensors, changed in place where it can be; any depth, cycles too."""
        waiting, seen = [data], {id(data)}
        if isinstance(data, Record):
            return self.stored(data)
        while waiting:
            item = waiting.pop()
            inside: list[Any] = []
            if isinstance(item, dict):
                for key, value in item.items():
                    if isinstance(value, Record):
                        item[key] = self.stored(value)
                inside = list(item.values())
            elif isinstance(item, list | tuple):
                inside = list(item)  # names come from dictionaries; tensors in lists stay records
            elif isinstance(item, Inert):
                inside = [item.state]
            for part in inside:
                if isinstance(part, dict | list | tuple | Inert) and id(part) not in seen:
                    seen.add(id(part))
                    waiting.append(part)
        return data


class ZipArchive(Storages):
    """A checkpoint as torch writes it since version 1.6: `data.pkl`, and a member for each storage."""

    def __init__(self, path: Path):
        super().__init__(path)
        with zipfile.ZipFile(path) as archive:
            self.members = {entry.filename: entry for entry in archive.infolist()}
            found = [name for name in self.members if name.endswith("/data.pkl") or name == "data.pkl"]
            if len(found) != 1:
                raise UserError("a zip without one data.pkl is no checkpoint of torch")
            self.root = found[0].removesuffix("data.pkl")
            if self.root + "byteorder" in self.members and self.member(archive, "byteorder") != b"little":
                raise UserError("written on a big-endian machine, which is not supported")
            content = bytes(self.member(archive, "data.pkl", MOST_STRUCTURE))
        self.data = self.plain(unpickle(BytesIO(content)))

    def member(self, archive: zipfile.ZipFile, name: str, most: int | None = None) -> bytearray:
        """The content of a member that is no larger than the file it lies in."""
        entry = self.members.get(self.root + name)
        if entry is None:
            raise UserError(f"damaged or incomplete: it has no {name}")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise UserError("its members are compressed, which torch never does")
        if entry.file_size > min(self.bytes, most or self.bytes):
            raise UserError(f"{name} claims {entry.file_size} bytes, of a file of {self.bytes}")
        content = bytearray(entry.file_size)
        with archive.open(entry) as member:
            filled = read_into(member, content)
        if filled < len(content):
            raise UserError(f"damaged or incomplete: {name} is cut")
        return content

    def fetch(self, storage: Storage) -> bytearray:
        with zipfile.ZipFile(self.path) as archive:
            content = self.member(archive, f"data/{storage.key}")
        if len(content) < storage.size * storage.dtype.itemsize:
            raise UserError(
                f"damaged or incomplete: storage {storage.key} has {len(content)} bytes, "
                f"and {storage.size} numbers of {storage.dtype} are asked for"
            )
        return content[: storage.size * storage.dtype.itemsize]


class LegacyFile(Storages):
    """A checkpoint as torch wrote it before version 1.6: five pickles, then one storage after the other."""

    def __init__(self, path: Path):
        super().__init__(path)
        with path.open("rb") as file:
            if unpickle(file) != MAGIC or unpickle(file) != VERSION:
                raise UserError("a pickle, but no checkpoint of torch")
            system = unpickle(file)
            if isinstance(system, dict) and system.get("little_endian") is False:
                raise UserError("written on a big-endian machine, which is not supported")
            data, keys = unpickle(file), unpickle(file)
            if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
                raise UserError("damaged or incomplete: it does not name its storages")
            self.places = self.find(file, keys, storages(data))
        self.data = self.plain(data)

    def find(self, file: BufferedIOBase, keys: list[str], known: dict[str, Storage]) -> dict[str, int]:
        """Where each storage begins."""
        places = {}
        for key in keys:
            size = int.from_bytes(file.read(8), "little", signed=True)
            storage = known.get(key)
            if storage is None or size != storage.size:
                raise UserError(f"damaged or incomplete: storage {key} is not as its tensors say")
            places[key] = file.tell()
            file.seek(size * storage.dtype.itemsize, os.SEEK_CUR)
            if file.tell() > self.bytes:
                raise UserError(f"damaged or incomplete: storage {key} is cut")
        return places

    def fetch(self, storage: Storage) -> bytearray:
        if storage.key not in self.places:
            raise UserError(f"damaged or incomplete: storage {storage.key} is missing")
        content = bytearray(storage.size * storage.dtype.itemsize)
        with self.path.open("rb") as file:
            file.seek(self.places[storage.key])
            if read_into(file, content) < len(content):
                raise UserError(f"damaged or incomplete: storage {storage.key} is cut")
        return content


def read_into(file: Any, content: bytearray) -> int:
    """Fill memory from a file; how much of it could be filled."""
    filled, rest = 0, memoryview(content)
    while filled < len(content) and (count := file.readinto(rest[filled:])):
        filled += count
    return filled


def storages(data: Any) -> dict[str, Storage]:
    """Every storage that data speaks of, by its name."""
    found: dict[str, Storage] = {}
    waiting, seen = [data], {id(data)}
    while waiting:
        item = waiting.pop()
        if isinstance(item, Record):
            found[item.storage.key] = item.storage
            continue
        if isinstance(item, Storage):
            found[item.key] = item
            continue
        inside = (
            item.values() if isinstance(item, dict) else [item.state] if isinstance(item, Inert) else item
        )
        for part in inside if isinstance(item, dict | list | tuple | Inert) else ():
            if id(part) not in seen:
                seen.add(id(part))
                waiting.append(part)
    return found
