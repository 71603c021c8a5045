"""Parquet and Arrow files with the bytes of image files in a column."""

import json
import os
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genstack.atomic import atomic_path
from genstack.data.cache import cache
from genstack.data.images import SUFFIXES as PICTURES
from genstack.data.sources.table import TableSource
from genstack.data.text import expand, natural_key
from genstack.errors import UserError, extra

if TYPE_CHECKING:
    import pyarrow

SUFFIXES = (".parquet", ".arrow")
MOST_BYTES = 2**33  # of one unpacked row group


class ParquetSource(TableSource):
    """`images.parquet`, `images.arrow`, or a folder of such files: bytes of image files in a column `image`.

    Columns `label`, `caption` and `condition_image` are read if present, and class names that datasets wrote.
    An Arrow file is memory-mapped. A Parquet file is first unpacked into $GENSTACK_DATA or
    ~/.cache/genstack/data, once, so that single rows can be read. Needs the extra `parquet`.
    """

    def __init__(self, name: str):
        self.name = name
        self.files = files_in(expand(name))
        if not self.files:
            raise UserError(
                f"data source {name} not found; give a Parquet or Arrow file, or a folder of them"
            )
        tables = [read_table(file) for file in self.files]
        different = [
            file for file, table in zip(self.files, tables, strict=True) if table.schema != tables[0].schema
        ]
        if different:
            raise UserError(
                f"{different[0]} has other columns than {self.files[0]}; give tables with the same columns"
            )
        self.ends = np.cumsum([len(table) for table in tables])
        if not self.ends[-1]:
            raise UserError(f"{name} holds no rows")
        import pyarrow

        self.table = pyarrow.concat_tables(tables)
        self.find_columns(self.table.schema, features_of(self.table.schema))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return ("images.parquet", "images.arrow")

    @classmethod
    def claims(cls, name: str) -> bool:
        if "://" in name or name.startswith("hf:"):
            return False
        folder = expand(name)
        return name.lower().endswith(SUFFIXES) or (bool(files_in(folder)) and not holds_pictures(folder))

    def __len__(self) -> int:
        return int(self.ends[-1])

    def key(self, number: int) -> str:
        file = int(np.searchsorted(self.ends, number, side="right"))
        return f"{self.files[file].name}/{number - (int(self.ends[file - 1]) if file else 0)}"

    def row(self, number: int) -> "pyarrow.Table":
        return self.table.slice(number, 1)

    def unique(self, column: str) -> list[Any]:
        return self.table.column(column).unique().to_pylist() if column else []


def files_in(root: Path) -> list[Path]:
    """A file itself, or the files in a folder, in natural order."""
    if root.is_dir():
        found = [path for path in root.iterdir() if path.name.lower().endswith(SUFFIXES)]
        return sorted(found, key=lambda path: natural_key(path.name))
    return [root] if root.is_file() and root.name.lower().endswith(SUFFIXES) else []


def holds_pictures(folder: Path) -> bool:
    """Return True if there is a picture file below a folder: then the tables describe pictures."""
    return any(name.lower().endswith(PICTURES) for _, _, files in os.walk(folder) for name in files)


def read_table(file: Path) -> "pyarrow.Table":
    """Memory-map the table of a file."""
    with extra("parquet", f"{file} needs pyarrow"):
        import pyarrow
    try:
        return map_table(unpack(file) if file.name.lower().endswith(".parquet") else file)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file} cannot be read: {' '.join(str(error).split())[:200]}") from error


def map_table(file: Path) -> "pyarrow.Table":
    """Memory-map an Arrow file, in the file or the stream format."""
    import pyarrow

    memory = pyarrow.memory_map(str(file))
    try:
        return pyarrow.ipc.open_file(memory).read_all()
    except pyarrow.ArrowInvalid:
        return pyarrow.ipc.open_stream(memory).read_all()


def unpack(file: Path) -> Path:
    """Return the cached Arrow file of a Parquet file, written on first use, one row group at a time."""
    import pyarrow
    from pyarrow import parquet

    about = file.stat()
    what = (str(file.resolve()), about.st_size, about.st_mtime_ns)
    place = cache() / "parquet" / f"{blake2b(repr(what).encode(), digest_size=16).hexdigest()}.arrow"
    if place.exists():
        return place
    with (
        parquet.ParquetFile(file) as packed,
        atomic_path(place) as partial,
        pyarrow.ipc.new_file(str(partial), packed.schema_arrow) as writer,
    ):
        for group in range(packed.num_row_groups):
            size = packed.metadata.row_group(group).total_byte_size
            if size > MOST_BYTES:
                raise UserError(f"{file} has a row group of {size} bytes, more than {MOST_BYTES}; split it")
            writer.write_table(packed.read_row_group(group, use_threads=False), max_chunksize=1024)
    return place


def features_of(schema: "pyarrow.Schema") -> dict[str, Any]:
    """Features that datasets stored in a table; {} for none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}
