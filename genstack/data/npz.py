"""Arrays in .npz files, as `numpy.savez` writes them, larger than memory: written in pieces, then mapped."""

import struct
import zipfile
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.lib import format as npy

from genstack.atomic import atomic_path
from genstack.errors import UserError

LOCAL = struct.Struct("<4s22xHH")  # what stands before a member of a zip
CHUNK = 2**22  # bytes of a compressed member that are copied at a time
DAMAGE = (ValueError, KeyError, EOFError, SyntaxError, TypeError, struct.error, zipfile.BadZipFile)


def write_pieces(
    path: Path, name: str, shape: tuple[int, ...], dtype: str, pieces: Iterable[np.ndarray]
) -> None:
    """Write one array from pieces, of which only one is in memory at a time.

    Args:
        path: path of the file.
        name: name of the array.
        shape: shape of the whole array.
        dtype: type of its numbers.
        pieces: its numbers in order.
    """
    header = {"descr": npy.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    member = zipfile.ZipInfo(f"{name}.npy")
    with (
        atomic_path(path) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive,
        archive.open(member, "w", force_zip64=True) as file,
    ):
        npy.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, dtype).data)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write small arrays."""
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def map_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Map the named arrays, if a file has them; compressed ones are copied to a temporary file first.

    Raises:
        UserError: not found, damaged, or an array of objects.
    """
    if not path.is_file():
        raise UserError(f"{path} not found; expected an .npz file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {entry.filename: entry for entry in archive.infolist()}
            found = {name: members[f"{name}.npy"] for name in names if f"{name}.npy" in members}
            return {name: map_member(path, archive, entry) for name, entry in found.items()}
    except DAMAGE as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:120]
        raise UserError(f"{path} is damaged or no .npz file ({reason})") from error


def map_member(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """Map one array of a file."""
    with archive.open(entry) as member:
        dtype, shape, order = read_header(member)
        begin = member.tell()
    if dtype.hasobject:
        raise UserError(f"{path}: {entry.filename} holds objects, which could run code; numbers are read")
    if begin + prod(shape) * dtype.itemsize != entry.file_size:
        raise ValueError(f"{entry.filename} of shape {shape} does not have {entry.file_size} bytes")
    if entry.compress_type == zipfile.ZIP_STORED:
        with path.open("rb") as file:
            file.seek(entry.header_offset)
            mark, name, extra = LOCAL.unpack(file.read(LOCAL.size))
        if mark != b"PK\x03\x04":
            raise ValueError(f"{entry.filename} does not lie where the file says")
        start = entry.header_offset + LOCAL.size + name + extra + begin
        return mapped(path, dtype, shape, order, start)
    with TemporaryFile() as copy, archive.open(entry) as member:
        while piece := member.read(CHUNK):
            copy.write(piece)
        copy.flush()
        return mapped(copy, dtype, shape, order, begin)  # the map outlives the file


def read_header(file: Any) -> tuple[np.dtype, tuple[int, ...], Any]:
    """Read dtype, shape and order of an array."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    shape, fortran, dtype = readers[npy.read_magic(file)](file)
    return dtype, shape, "F" if fortran else "C"


def mapped(file: Any, dtype: np.dtype, shape: tuple[int, ...], order: Any, start: int) -> np.ndarray:
    """Map numbers of a file; an empty array needs no file."""
    if prod(shape) == 0:
        return np.zeros(shape, dtype)
    return np.memmap(file, dtype, "r", start, shape, order)
