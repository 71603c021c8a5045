"""Files of torch.save, read without importing or calling anything that they name.

`torch.load` does not suit hostile files, even with inert classes: it hands TorchScript archives to
`torch.jit.load`, unpacks tar files, and the unpickler in C crashes on nested keys and large memo indices.
Here the standard library's unpickler in Python builds the structure, with a few opcodes replaced. Tensors are
views of the memory-mapped file, within its bounds.
"""

import math
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from genstack.checkpoints.mapped import map_file, view
from genstack.errors import UserError

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001  # the first two pickles of files from before torch 1.6
MOST_STRUCTURE = 2**28  # bytes of the pickle in a zip
SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")  # of checkpoints
MOST_SHARED = 8  # bytes of tensors per byte of the file, since tensors may share a storage
KEYS = str | int | float | bytes | None  # types of dictionary keys that are quick to hash
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
DTYPES = {str(dtype): dtype for dtype in STORAGES.values()}
Storage = Callable[[str, torch.dtype, int], Tensor]  # key, type and count of numbers -> tensor


@dataclass(eq=False)
class Inert:
    """Stand-in for a class, function or object that a pickle names, with its state."""

    name: str
    state: Any = None


def no_storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
    """Reject storages in a pickle of plain data."""
    raise ValueError(f"unexpected storage {key}")


class InertUnpickler(pickle._Unpickler):
    """Builds containers, numbers, strings and tensors; everything else becomes `Inert`.

    Args:
        file: file at the start of a pickle; its reads must not allocate more than it holds (BytesIO, mmap).
        storage: returns the numbers of a storage.
        most: maximum number of bytes of all tensors together.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: Any, storage: Storage, most: int):
        super().__init__(file, encoding="utf-8", errors="replace")
        self.storage, self.left = storage, most
        self.known: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": ordered_dict,
            "torch.Size": lambda sides=(): tuple(sides),
            "torch._utils._rebuild_tensor": self.rebuild,
            "torch._utils._rebuild_tensor_v2": self.rebuild,
            "torch._utils._rebuild_tensor_v3": self.rebuild_typed,
            "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
            "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
        }

    def find_class(self, module: str, name: str) -> Inert:
        """Return a stand-in instead of importing."""
        return Inert(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        """Return the numbers of `("storage", type, key, device, count[, view])`, or the class of a module."""
        kind, of, *rest = pid
        if kind == "module":
            return of
        key, _, count, *view = rest
        if kind != "storage" or not isinstance(of, Inert) or any(view):
            raise ValueError("expected a storage outside of the pickle")
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise TypeError("expected a name and a size of a storage")
        return self.storage(key, STORAGES[of.name.rpartition(".")[2]], count)

    def rebuild(self, numbers: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
        """Return a view of a storage, after checking its bounds."""
        if not isinstance(numbers, Tensor) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
            raise TypeError("expected a tensor to be a view of a storage")
        if not all(type(number) is int for number in (offset, *shape, *strides)):
            raise TypeError("expected integers as offset, shape and strides of a tensor")
        if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0:
            raise UserError(f"invalid tensor of shape {shape}, strides {strides} and offset {offset}")
        count, size = math.prod(shape), numbers.numel()
        last = offset + sum((side - 1) * step for side, step in zip(shape, strides, strict=True))
        if count and last >= size:
            raise UserError(f"a tensor of shape {shape} exceeds its storage of {size} numbers")
        if count > size:
            raise UserError(f"a tensor of shape {shape} repeats the {size} numbers of its storage")
        self.left -= count * numbers.dtype.itemsize
        if self.left < 0:
            raise UserError(f"its tensors have over {MOST_SHARED} times as many bytes as the file")
        return numbers.as_strided(shape, strides, offset)

    def rebuild_typed(self, numbers: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Tensor:
        """Return a view of an untyped storage."""
        return self.rebuild(numbers.view(DTYPES[rest[2].name]), offset, shape, strides)

    def call(self, function: Any, arguments: Any) -> Any:
        """Call a known function; return a stand-in for the result of any other."""
        name = function.name if isinstance(function, Inert) else "object"
        return self.known[name](*arguments) if name in self.known else Inert(name)

    def fill(self, pairs: list[Any]) -> None:
        """Add alternating keys and values to the dictionary on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, dict):
            for key, value in zip(pairs[::2], pairs[1::2], strict=True):
                target[key if isinstance(key, KEYS) else Inert("key")] = value
        elif not isinstance(target, Inert):
            raise TypeError(f"{type(target).__name__} takes no keys")

    def extend(self, items: list[Any]) -> None:
        """Add items to the list on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            raise TypeError(f"{type(target).__name__} takes no items")

    def load_call(self) -> None:
        """Call a function, or a class without keyword arguments."""
        arguments, function = self.stack.pop(), self.stack.pop()
        self.append(self.call(function, arguments))

    def load_call_of_keywords(self) -> None:
        """Call a class; keyword arguments are dropped."""
        self.stack.pop()
        self.load_call()

    def _instantiate(self, klass: Any, args: Any) -> None:
        """Call a class for the old opcodes INST and OBJ."""
        self.append(self.call(klass, args))

    def load_state(self) -> None:
        """Set the state of a stand-in; ignore any other."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].state = state

    def load_dictionary(self) -> None:
        """Make a dictionary of the items above the mark."""
        items = self.pop_mark()
        self.append({})
        self.fill(items)

    def load_pair(self) -> None:
        """Add one key and its value."""
        value, key = self.stack.pop(), self.stack.pop()
        self.fill([key, value])


REPLACED: dict[bytes, Callable[[Any], None]] = {
    pickle.REDUCE: InertUnpickler.load_call,
    pickle.NEWOBJ: InertUnpickler.load_call,
    pickle.NEWOBJ_EX: InertUnpickler.load_call_of_keywords,
    pickle.BUILD: InertUnpickler.load_state,
    pickle.DICT: InertUnpickler.load_dictionary,
    pickle.SETITEM: InertUnpickler.load_pair,
    pickle.SETITEMS: lambda self: self.fill(self.pop_mark()),
    pickle.APPEND: lambda self: self.extend([self.stack.pop()]),
    pickle.APPENDS: lambda self: self.extend(self.pop_mark()),
    pickle.ADDITEMS: lambda self: self.extend(self.pop_mark()),
    pickle.EMPTY_SET: InertUnpickler.dispatch[pickle.EMPTY_LIST[0]],  # sets would hash their items
    pickle.FROZENSET: InertUnpickler.dispatch[pickle.LIST[0]],
    pickle.BYTEARRAY8: InertUnpickler.dispatch[pickle.BINBYTES8[0]],  # allocates before it reads
}
InertUnpickler.dispatch |= {code[0]: action for code, action in REPLACED.items()}
for code in (pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER):
    del InertUnpickler.dispatch[code[0]]  # registered classes and out-of-band buffers


def ordered_dict(*arguments: Any) -> dict:
    """Make a dictionary; old pickles give its items as a list of pairs."""
    pairs = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], list) else []
    return {key: value for key, value in pairs if isinstance(key, KEYS)}


def unpickle(file: Any, storage: Storage = no_storage, most: int = 0) -> Any:
    """Read the plain data of one pickle at the file's position."""
    return InertUnpickler(file, storage, most).load()


class TorchFile:
    """A memory-mapped file of torch: a zip, or consecutive pickles as before torch 1.6.

    `data` is its content; tensors are views of the file.
    """

    def __init__(self, path: Path):
        with path.open("rb") as file:
            self.mapped = map_file(file)
        self.spans: dict[str, tuple[int, int]] = {}  # offset and size by key of the storage
        self.checksums: dict[str, int] = {}
        self.unverified: dict[int, str] = {}  # keys of storages by memory address
        self.data = self.read_zip(path) if self.mapped[:2] == b"PK" else self.read_legacy()

    def numbers(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        """Return the numbers of a storage."""
        begin, size = self.spans[key]
        if count * dtype.itemsize > size:
            raise UserError(f"storage {key} has {size} bytes, too few for {count} numbers of {dtype}")
        found = view(self.mapped, dtype, count, begin)
        if count:
            self.unverified[found.data_ptr()] = key
        return found

    def verify(self, tensor: Tensor) -> None:
        """Check the checksum of a tensor's storage, once, if the file has one."""
        key = self.unverified.pop(tensor.untyped_storage().data_ptr(), "")
        if key in self.checksums:
            begin, size = self.spans[key]
            with memoryview(self.mapped) as whole:
                if zlib.crc32(whole[begin : begin + size]) != self.checksums[key]:
                    raise UserError(f"damaged: storage {key} does not match its checksum")

    def read_zip(self, path: Path) -> Any:
        """Read a zip with a pickle `data.pkl` and a member for each storage."""
        with zipfile.ZipFile(path) as archive:
            members = {entry.filename: entry for entry in archive.infolist()}
        found = [name for name in members if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(found) != 1:
            inside = next((name for name in members if name.endswith(SUFFIXES)), "")
            way_out = f"; unpack it and give {inside[:80]}" if inside else ""
            raise UserError(f"not a checkpoint of torch: expected a zip with one data.pkl{way_out}")
        root = found[0].removesuffix("data.pkl")
        for name, entry in members.items():
            if name.startswith(root):
                self.spans[name.removeprefix(root)] = self.span(entry)
                self.checksums[name.removeprefix(root)] = entry.CRC
        if self.content("byteorder", 16) not in (b"", b"little"):
            raise UserError("written on a big-endian machine, which is not supported")
        structure = self.content("data.pkl", MOST_STRUCTURE)

        def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
            return self.numbers(f"data/{key}", dtype, count)

        return unpickle(BytesIO(structure), storage, MOST_SHARED * len(self.mapped))

    def span(self, entry: zipfile.ZipInfo) -> tuple[int, int]:
        """Return offset and size of the content of a member, after its local header."""
        start = entry.header_offset
        if entry.compress_type != zipfile.ZIP_STORED:
            raise UserError("compressed members are not supported; torch.save writes none")
        mark, name, extra = struct.unpack("<4s22xHH", self.mapped[max(0, start) : start + 30])
        begin = start + 30 + name + extra
        if mark != b"PK\x03\x04" or begin + entry.file_size > len(self.mapped):
            raise UserError(f"damaged or incomplete: {entry.filename} is outside the file")
        return begin, entry.file_size

    def content(self, name: str, most: int) -> bytes:
        """Return the content of a small member; empty without one."""
        begin, size = self.spans.get(name, (0, 0))
        if size > most:
            raise UserError(f"{name} has {size} bytes; the limit is {most}")
        content = self.mapped[begin : begin + size]
        if size and zlib.crc32(content) != self.checksums[name]:
            raise UserError(f"damaged: {name} does not match its checksum")
        return content

    def read_legacy(self) -> Any:
        """Read five pickles and the storages; the fourth is read again once the storages are located."""
        file, total = self.mapped, len(self.mapped)
        declared: dict[str, tuple[int, int]] = {}

        def declare(key: str, dtype: torch.dtype, count: int) -> Tensor:
            declared[key] = (count, count * dtype.itemsize)
            if declared[key][1] > total:
                raise UserError(f"storage {key} has {count} numbers, but the file has {total} bytes")
            return torch.empty(count, dtype=dtype, device="meta")

        if unpickle(file) != MAGIC or unpickle(file) != VERSION:
            raise UserError("not a checkpoint of torch, but another kind of pickle")
        system = unpickle(file)
        if isinstance(system, dict) and system.get("little_endian") is False:
            raise UserError("written on a big-endian machine, which is not supported")
        start = file.tell()
        unpickle(file, declare, MOST_SHARED * total)
        for key in unpickle(file):
            count, size = declared[key]
            begin = file.tell() + 8
            if int.from_bytes(file.read(8), "little", signed=True) != count or begin + size > total:
                raise UserError(f"damaged or incomplete: storage {key} does not have {count} numbers")
            self.spans[key] = (begin, size)
            file.seek(begin + size)
        file.seek(start)
        return unpickle(file, self.numbers, MOST_SHARED * total)
