"""Files mapped into memory: tensors are views of them, and their pages can be dropped once they were read."""

import json
import mmap
from pathlib import Path
from typing import BinaryIO
from weakref import WeakKeyDictionary

import torch
from safetensors import safe_open
from torch import Tensor

from genstack.errors import UserError

#: Names of dtypes in files of safetensors.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
#: First address of each mapped file.
ADDRESSES: WeakKeyDictionary[mmap.mmap, int] = WeakKeyDictionary()


def map_file(file: BinaryIO) -> mmap.mmap:
    """Map an open file; nothing is read before it is looked at."""
    memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    ADDRESSES[memory] = torch.frombuffer(memory, dtype=torch.uint8, count=1).data_ptr()
    return memory


def view(memory: mmap.mmap, dtype: torch.dtype, count: int, offset: int) -> Tensor:
    """Return numbers of a mapped file."""
    return (
        torch.frombuffer(memory, dtype=dtype, count=count, offset=offset)
        if count
        else torch.empty(0, dtype=dtype)
    )


def drop_pages(tensor: Tensor) -> None:
    """Free the memory of a tensor that lies in a mapped file; whoever needs it reads it again."""
    if not hasattr(mmap, "MADV_DONTNEED") or not tensor.is_contiguous():
        return
    for memory, address in ADDRESSES.items():
        first, last = tensor.data_ptr() - address, tensor.data_ptr() - address + tensor.nbytes
        if first >= 0 and last <= len(memory):
            first, last = -(-first // mmap.PAGESIZE), last // mmap.PAGESIZE
            if last > first:
                memory.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)


def map_safetensors(path: Path) -> dict[str, Tensor]:
    """Map the tensors of a safetensors file, after the library has compared its header with the file."""
    with safe_open(path, framework="pt"), path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        memory = map_file(file)
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise UserError(f"{name} has the dtype {entry['dtype']}, which is not supported")
        dtype, (first, last) = DTYPES[entry["dtype"]], entry["data_offsets"]
        numbers = view(memory, dtype, (last - first) // dtype.itemsize, 8 + size + first)
        found[name] = numbers.reshape(entry["shape"])
    return found
