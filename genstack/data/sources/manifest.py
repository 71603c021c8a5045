"""A list of picture files with what is known of each: CSV (RFC 4180), or a JSON object a line (JSONL)."""

import csv
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TextIO
from unicodedata import normalize

from jaxtyping import Float
from torch import Tensor

from genstack.data.images import Preprocessing, read
from genstack.data.names import Names
from genstack.data.source import PictureInfo, Source, bits_of_first, read_info
from genstack.data.sources.folder import natural_key
from genstack.data.text import clean, encodable, existing
from genstack.errors import UserError

COLUMNS = ("path", "label", "caption", "condition_image")
LONGEST_LINE = 2**20
NAMED = 5  # bad rows in a message


@dataclass(frozen=True, slots=True)
class Row:
    """One picture: the line that names it, and that line's columns, "" for what is not there."""

    line: int
    path: str
    label: str = ""
    caption: str = ""
    condition_image: str = ""


class Rows:
    """Very many rows, kept as the names in them; each is made when it is asked for."""

    def __init__(self, rows: Iterable[Row]):
        self.lines = array("q")
        self.fields = Names(self.fields_of(rows))

    def fields_of(self, rows: Iterable[Row]) -> Iterator[str]:
        """All columns of one row after the other; their lines are kept on the way."""
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


class ManifestSource(Source):
    """`pictures.csv` or `pictures.jsonl`: column `path`, and `label`, `caption`, `condition_image` if known.

    Paths are relative to the folder of the list. Classes are the labels that occur, in natural order. Rows
    with the same path are images of their own, on the same side of the split. Other columns are left alone.
    """

    def __init__(self, name: str):
        self.file = existing(Path(name).expanduser())
        if not self.file.is_file():
            raise UserError(f"data source {name} does not exist; give a CSV or JSONL file with a column path")
        self.rows = rows(self.file)
        labels = {row.label for row in self.rows} - {""}
        self.class_names = tuple(sorted(labels, key=natural_key))
        self.labels = {label: number for number, label in enumerate(self.class_names)}
        if labels:
            without = [row.line for row in self.rows if not row.label]
            reject_lines(self.file, without, "no label, where other lines have one")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return ("pictures.csv", "pictures.jsonl")

    @classmethod
    def claims(cls, name: str) -> bool:
        return name.lower().endswith((".csv", ".jsonl")) and "://" not in name and not Path(name).is_dir()

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def bits(self) -> int:  # type: ignore[override]
        return bits_of_first(self)

    def key(self, number: int) -> str:
        return normalize("NFC", self.rows[number].path)

    def label(self, number: int) -> int:
        return self.labels[self.rows[number].label] if self.class_names else 0

    def caption(self, number: int) -> str:
        return self.rows[number].caption or self.rows[number].label

    def info(self, number: int) -> PictureInfo:
        return read_info(*self._place(number, self.rows[number].path))

    def image(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        return self._read(number, self.rows[number].path, preprocessing)

    def condition_image(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        if not self.rows[number].condition_image:
            raise UserError(
                f"{self.file} line {self.rows[number].line} has no condition_image; add it, "
                f"or name a folder by data.condition_images"
            )
        return self._read(number, self.rows[number].condition_image, preprocessing)

    def _place(self, number: int, path: str) -> tuple[Path, str]:
        place = existing(self.file.parent / Path(path).expanduser())
        return place, f"{self.file} line {self.rows[number].line}: {place}"

    def _read(self, number: int, path: str, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        place, name = self._place(number, path)
        raw = preprocessing.window is not None
        return read(place, preprocessing.channels, preprocessing.background, raw, name)


def rows(file: Path) -> Rows:
    """All rows of a list.

    Raises:
        UserError: rows that cannot be read, by their line numbers, or a list without rows.
    """
    bad: list[str] = []
    try:
        found = Rows(parse_rows(file, bad))
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not written in UTF-8; save it so ({error.reason})") from error
    if bad:
        more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise UserError(f"{file}: {'; '.join(bad[:NAMED])}{more}; mend or remove these lines")
    if not len(found):
        raise UserError(f"{file} lists no pictures; give each a line with its path")
    return found


def parse_rows(file: Path, bad: list[str]) -> Iterator[Row]:
    """The rows of a list that can be read; what is wrong with others goes to `bad`."""
    entries = csv_entries if file.suffix.lower() == ".csv" else json_entries
    with file.open(encoding="utf-8-sig", newline="") as lines:
        for line, entry in entries(lines, file):
            row = parse_row(line, entry)
            if isinstance(row, str):
                bad.append(f"line {line} {row}")
            else:
                yield row


def parse_row(line: int, entry: Mapping[str, object] | str) -> Row | str:
    """A row, or what is wrong with it."""
    if isinstance(entry, str):
        return entry
    values = {}
    for column in COLUMNS:
        value = entry.get(column)
        if isinstance(value, (dict, list)):
            return f"has a {type(value).__name__} as its {column}, where one value is possible"
        values[column] = "" if value is None else str(value)
    path = values.pop("path")
    if not path:
        return "has no path"
    if not encodable(path, "surrogateescape"):
        return f"has {clean(path)[:60]!r} as its path, which is not valid Unicode"
    if "://" in path or "\0" in path:
        return f"has {path[:60]!r} as its path, which is not a file"
    values["label"], values["caption"] = clean(values["label"]), clean(values["caption"])
    return Row(line, path, **values)


def csv_entries(lines: TextIO, file: Path) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    """Line numbers and columns of a CSV file; a line that does not fit the first is a sentence."""
    reader = csv.reader(limited_lines(lines), strict=True)
    try:
        columns = [name.strip() for name in next(reader, [])]
        check_columns(columns, file)
        for fields in reader:
            if len(fields) == len(columns):
                yield reader.line_num, dict(zip(columns, fields, strict=True))
            elif fields:
                yield reader.line_num, f"has {len(fields)} columns, where the first line names {len(columns)}"
    except csv.Error as error:
        raise UserError(f"{file} line {reader.line_num} cannot be read: {error}; mend its quotes") from error


def json_entries(lines: TextIO, file: Path) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    """Line numbers and objects of a JSONL file; an invalid line is an error message."""
    for number, line in enumerate(limited_lines(lines), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            yield number, f"is not JSON: {str(error)[:60]}"
            continue
        if not isinstance(entry, dict):
            yield number, "is not a JSON object, such as {" + '"path": "a.png"}'
            continue
        if "path" not in entry:
            check_columns(list(entry), file, number)
        yield number, entry


def check_columns(columns: list[str], file: Path, line: int = 1) -> None:
    """Refuse a list without paths, and a column whose name is nearly one that is missing."""
    missing = [name for name in COLUMNS if name not in columns]
    for name in missing:
        near = get_close_matches(name, set(columns) - set(COLUMNS), n=1, cutoff=0.8)
        if near:
            raise UserError(f"{file} line {line} has a column {near[0]}; did you mean {name}?")
    if "path" in missing:
        have = ", ".join(columns)[:80] or "nothing"
        raise UserError(f"{file} line {line} names {have}, and no path; the columns are {', '.join(COLUMNS)}")


def limited_lines(lines: TextIO) -> Iterator[str]:
    """The lines of a file, none longer than a list can mean."""
    number = 0
    while line := lines.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE:
            raise UserError(f"{lines.name} line {number} has {LONGEST_LINE} letters or more; is it a list?")
        yield line


def reject_lines(file: Path, lines: list[int], why: str) -> None:
    """Refuse a list for some of its lines."""
    if lines:
        more = f" and {len(lines) - NAMED} more" if len(lines) > NAMED else ""
        raise UserError(f"{file}: {why}: line {', '.join(map(str, lines[:NAMED]))}{more}")
