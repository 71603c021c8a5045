"""Images in the rows of an Arrow table; its columns are found by their names and types."""

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genstack.data.source import FileSource
from genstack.data.text import clean, existing, natural_key
from genstack.errors import UserError

if TYPE_CHECKING:
    import pyarrow

IMAGES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp")
LABELS = ("label", "labels", "class", "cls", "fine_label")
CAPTIONS = ("caption", "text", "prompt", "description")
CONDITIONS = ("condition_image", "conditioning_image")


class TableSource(FileSource):
    """Image files in the rows of a table: their bytes, or `bytes` and `path` (the layout of datasets)."""

    name: str  # for messages

    def find_columns(self, schema: "pyarrow.Schema", features: Mapping[str, Any]) -> None:
        """Find the columns that are read.

        Args:
            schema: the columns and their types.
            features: the features that datasets stored; {} for none.
        """
        files = [each.name for each in schema if holds_files(each.type)]
        texts = [each.name for each in schema if is_text(each.type)]
        others = [name for name in files if name not in CONDITIONS]
        self.image_column = first_of(IMAGES, files) or next(iter(others), "")
        if not self.image_column:
            raise UserError(f"{self.name} has no column of image files among {', '.join(schema.names)[:200]}")
        self.condition_column = first_of(CONDITIONS, files)
        self.caption_column = first_of(CAPTIONS, texts)
        self.warn_of_unread("caption", CAPTIONS, self.caption_column, schema)
        known = [name for name in schema.names if is_class_label(features.get(name))]
        self.numbered = bool(known)  # labels are numbers of named classes
        if known:
            self.label_column = first_of(LABELS, known) or known[0]
            self.class_names = tuple(clean(str(name)) for name in features[self.label_column]["names"])
        else:
            numbers = [each.name for each in schema if "int" in str(value_type(each.type))[:5]]
            self.label_column = first_of(LABELS, [name for name in schema.names if name in texts + numbers])
            self.warn_of_unread("label", LABELS, self.label_column, schema)
            values = {str(value) for value in self.unique(self.label_column) if value is not None}
            self.class_names = tuple(sorted(values, key=natural_key))
        self.labels = {name: number for number, name in enumerate(self.class_names)}

    def warn_of_unread(self, what: str, names: Sequence[str], read: str, schema: "pyarrow.Schema") -> None:
        """Warn of a column that has the name of one that is read, in other case or of another type."""
        alike = [each for each in schema if each.name.lower() in names]
        if alike and not read:
            kinds = "whole numbers or text" if what == "label" else "text"
            warnings.warn(
                f"{self.name}: column {alike[0].name} of type {alike[0].type} is not read as {what}; "
                f"expected a column {names[0]} of {kinds}",
                stacklevel=2,
            )

    @abstractmethod
    def row(self, number: int) -> "pyarrow.Table":
        """A table of one row."""

    @abstractmethod
    def unique(self, column: str) -> Sequence[Any]:
        """The different values in a column; () if `column` is ""."""

    def value(self, number: int, column: str) -> Any:
        return self.row(number).column(column)[0].as_py() if column else None

    def label(self, number: int) -> int:
        if not self.class_names:
            return 0
        value = self.value(number, self.label_column)
        label = value if self.numbered else self.labels.get(str(value))
        if label is None or not 0 <= label < len(self.class_names):
            raise UserError(f"{self.name}: row {number} has no class in its column {self.label_column}")
        return label

    def caption(self, number: int) -> str:
        if self.caption_column:
            return clean(str(self.value(number, self.caption_column) or ""))
        value = self.value(number, self.label_column)
        return "" if value is None else self.class_names[self.label(number)]

    def file(self, number: int) -> tuple[bytes | Path, str]:
        return self._file(number, self.image_column)

    def condition_file(self, number: int) -> tuple[bytes | Path, str]:
        if not self.condition_column:
            raise UserError(f"{self.name} has no column {CONDITIONS[0]} of image files")
        return self._file(number, self.condition_column)

    def _file(self, number: int, column: str) -> tuple[bytes | Path, str]:
        value, name = self.value(number, column), f"{self.name}: row {number}"
        if isinstance(value, dict):
            value = value.get("bytes") or existing(Path(value.get("path") or "none"))
        if not value:
            raise UserError(f"{name} has no image in its column {column}")
        return value, name


def first_of(wanted: Sequence[str], names: Sequence[str]) -> str:
    """The first wanted name among `names`; "" for none."""
    return next((name for name in wanted if name in names), "")


def is_text(kind: "pyarrow.DataType") -> bool:
    return str(value_type(kind)).endswith("string")


def value_type(kind: "pyarrow.DataType") -> "pyarrow.DataType":
    """Type of the values of a column, which may be stored as indices into a dictionary."""
    import pyarrow

    return kind.value_type if pyarrow.types.is_dictionary(kind) else kind


def holds_files(kind: "pyarrow.DataType") -> bool:
    """Return True if a column holds files: binary, or a struct with binary `bytes`."""
    import pyarrow

    if pyarrow.types.is_struct(kind):
        return any(each.name == "bytes" and holds_files(each.type) for each in kind)
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def is_class_label(feature: Any) -> bool:
    return (
        isinstance(feature, Mapping) and feature.get("_type") == "ClassLabel" and bool(feature.get("names"))
    )
