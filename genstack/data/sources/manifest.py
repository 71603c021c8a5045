"""A list of picture files with their metadata: CSV (RFC 4180), or JSONL with one object per line."""

import csv
import json
import warnings
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TextIO
from unicodedata import normalize

from genstack.data.source import FURTHER, MULTIFRAME, FileSource, further_frames
from genstack.data.text import Names, clean, encodable, existing, expand, natural_key
from genstack.errors import UserError

COLUMNS = ("path", "label", "caption", "condition_image")
LONGEST_LINE = 2**20
MOST_CHECKED = 1000  # sets of columns in a JSONL file
SHOWN = 5  # invalid lines in a message


@dataclass(frozen=True, slots=True)
class Row:
    """A picture: the number of its line, and the columns, "" for a missing one."""

    line: int
    path: str
    label: str = ""
    caption: str = ""
    condition_image: str = ""


class Rows:
    """Many rows, stored compactly; each `Row` is built on access."""

    def __init__(self, rows: Iterable[Row]):
        self.lines = array("q")
        self.fields = Names(self._add(rows))

    def _add(self, rows: Iterable[Row]) -> Iterator[str]:
        """Store the lines of rows, and yield their columns."""
        for row in rows:
            self.lines.append(row.line)
            yield from (row.path, row.label, row.caption, row.condition_image)

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, number: int) -> Row:
        first = len(COLUMNS) * number
        return Row(self.lines[number], *self.fields[first : first + len(COLUMNS)])

    def __iter__(self) -> Iterator[Row]:
        return map(self.__getitem__, range(len(self)))

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.fields.nbytes + self.lines.itemsize * len(self.lines)


class ManifestSource(FileSource):
    """`pictures.csv` or `pictures.jsonl`: column `path`, and `label`, `caption`, `condition_image` if known.

    Paths are relative to the folder of the list. Classes are the labels that occur, in natural order. Rows
    with the same path are separate images on the same side of the split. Other columns are ignored.
    """

    def __init__(self, name: str):
        self.path = existing(expand(name))
        if not self.path.is_file():
            raise UserError(f"data source {name} not found; give a CSV or JSONL file with a column path")
        self.rows = rows(self.path)
        labels = {row.label for row in self.rows} - {""}
        self.class_names = tuple(sorted(labels, key=natural_key))
        self.labels = {label: number for number, label in enumerate(self.class_names)}
        if labels:
            without = [row.line for row in self.rows if not row.label]
            reject_lines(self.path, without, "no label, but other lines have one")
        elif 0 < (bare := sum(not row.caption for row in self.rows)) < len(self.rows):
            warnings.warn(f"{self.path}: {bare} of {len(self.rows)} pictures have no caption", stacklevel=2)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return ("pictures.csv", "pictures.jsonl")

    @classmethod
    def claims(cls, name: str) -> bool:
        return name.lower().endswith((".csv", ".jsonl")) and "://" not in name and not Path(name).is_dir()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def omitted(self) -> dict[str, int]:
        several = (number for number, row in enumerate(self.rows) if row.path.lower().endswith(MULTIFRAME))
        further = further_frames(map(self.file, several))
        return {FURTHER: further} if further else {}

    def key(self, number: int) -> str:
        return normalize("NFC", self.rows[number].path)

    def label(self, number: int) -> int:
        return self.labels[self.rows[number].label] if self.class_names else 0

    def caption(self, number: int) -> str:
        return self.rows[number].caption or self.rows[number].label

    def file(self, number: int) -> tuple[Path, str]:
        return self._file(number, self.rows[number].path)

    def condition_file(self, number: int) -> tuple[Path, str]:
        row = self.rows[number]
        if not row.condition_image:
            raise UserError(
                f"{self.path} line {row.line} has no condition_image; add it, "
                f"or name a folder by data.condition_images"
            )
        return self._file(number, row.condition_image)

    def _file(self, number: int, path: str) -> tuple[Path, str]:
        file = existing(self.path.parent / expand(path))
        return file, f"{self.path} line {self.rows[number].line}: {file}"


def rows(file: Path) -> Rows:
    """Read all rows of a list; an error names the lines that are invalid."""
    bad: list[str] = []
    try:
        found = Rows(parse_rows(file, bad))
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not encoded in UTF-8 ({error.reason}); convert it") from error
    if bad:
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise UserError(f"{file}: {'; '.join(bad[:SHOWN])}{more}; correct or remove these lines")
    if not len(found):
        raise UserError(f"{file} lists no pictures; expected a line with a path for each")
    return found


def parse_rows(file: Path, bad: list[str]) -> Iterator[Row]:
    """Yield the valid rows of a list; errors of the others are appended to `bad`."""
    entries = csv_entries if file.suffix.lower() == ".csv" else json_entries
    with file.open(encoding="utf-8-sig", newline="") as lines:
        for line, entry in entries(lines, file):
            row = parse_row(line, entry)
            if isinstance(row, str):
                bad.append(f"line {line} {row}")
            else:
                yield row


def parse_row(line: int, entry: Mapping[str, object] | str) -> Row | str:
    """Parse a row; the error message if it is invalid."""
    if isinstance(entry, str):
        return entry
    values = {}
    for column in COLUMNS:
        value = entry.get(column)
        if isinstance(value, (dict, list)):
            return f"has a {type(value).__name__} as its {column}; expected one value"
        values[column] = text(value)
    path = values.pop("path")
    if not path:
        return "has no path"
    if not encodable(path, "surrogateescape"):
        return f"has {clean(path)[:60]!r} as its path, which is not valid Unicode"
    if "://" in path or "\0" in path:
        return f"has {path[:60]!r} as its path, which is not a file"
    values["label"] = " ".join(clean(normalize("NFC", values["label"])).split())
    values["caption"] = clean(values["caption"]).strip()
    return Row(line, path, **values)


def text(value: object) -> str:
    """Spell a value as JSON does, and a whole number without a point: 1 and 1.0 are one class."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)


def csv_entries(lines: TextIO, file: Path) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    """Line numbers and columns of a CSV file; an invalid line is an error message."""
    reader = csv.reader(limited_lines(lines), strict=True)
    try:
        columns = [name.strip() for name in next(reader, [])]
        check_columns(columns, file)
        for fields in reader:
            if len(fields) == len(columns):
                yield reader.line_num, dict(zip(columns, fields, strict=True))
            elif fields:
                yield reader.line_num, f"has {len(fields)} columns, but the first line has {len(columns)}"
    except csv.Error as error:
        raise UserError(
            f"{file} line {reader.line_num} cannot be read: {error}; correct its quotes"
        ) from error


def json_entries(lines: TextIO, file: Path) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    """Line numbers and objects of a JSONL file; an invalid line is an error message."""
    checked: set[tuple[str, ...]] = set()
    for number, line in enumerate(limited_lines(lines), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line, object_pairs_hook=unique)
        except (ValueError, RecursionError) as error:
            yield number, f"is not JSON: {str(error)[:60]}"
            continue
        if not isinstance(entry, dict):
            yield number, "is not a JSON object, such as {" + '"path": "a.png"}'
            continue
        if (columns := tuple(entry)) not in checked:
            check_columns(list(columns), file, number)
            if len(checked) < MOST_CHECKED:
                checked.add(columns)
        yield number, entry


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build an object whose names are unique."""
    if name := repeated([name for name, _ in pairs]):
        raise ValueError(f"{name[:40]} is given twice")
    return dict(pairs)


def repeated(names: list[str]) -> str:
    """Return the first name that occurs twice; "" for none."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def check_columns(columns: list[str], file: Path, line: int = 1) -> None:
    """Reject a list without paths, and columns with misspelled names."""
    if name := repeated(columns):
        raise UserError(f"{file} line {line} has two columns {name[:40]}; keep one")
    missing = [name for name in COLUMNS if name not in columns]
    others = {name.lower(): name for name in columns if name not in COLUMNS}
    for name in missing:
        near = get_close_matches(name, others, n=1, cutoff=0.8)
        if near:
            raise UserError(f"{file} line {line} has a column {others[near[0]]}; did you mean {name}?")
    if "path" in missing:
        have = ", ".join(columns)[:80] or "nothing"
        raise UserError(f"{file} line {line} has columns {have}, but no path; known: {', '.join(COLUMNS)}")


def limited_lines(lines: TextIO) -> Iterator[str]:
    """Yield the lines of a file, up to a maximum length."""
    number = 0
    while line := lines.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE:
            raise UserError(
                f"{lines.name} line {number} has {LONGEST_LINE} letters or more; give a CSV or JSONL file"
            )
        yield line


def reject_lines(file: Path, lines: list[int], why: str) -> None:
    """Raise an error that names lines, if there are any."""
    if lines:
        more = f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        raise UserError(f"{file}: {why}: line {', '.join(map(str, lines[:SHOWN]))}{more}")
