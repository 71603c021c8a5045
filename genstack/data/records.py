"""Rows of an Arrow table as images and what is known of them: which column says what."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from genstack.data.images import Preprocessing, read
from genstack.data.source import PictureInfo, read_info
from genstack.data.sources.folder import natural_key
from genstack.data.text import clean, existing
from genstack.errors import UserError

if TYPE_CHECKING:
    import pyarrow

IMAGES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp")
LABELS = ("label", "labels", "class", "cls", "fine_label")
CAPTIONS = ("caption", "text", "prompt", "description")
CONDITIONS = ("condition_image", "conditioning_image")


class Records:
    """Images in the rows of a table: bytes of files, alone or as `bytes` and `path` (datasets' way).

    Args:
        name: of the table, for messages.
        schema: its columns and their types.
        features: what datasets wrote of its columns; {} for nothing.
        row: the table of one row, by number.
        distinct: the different values in a column.
    """

    def __init__(
        self,
        name: str,
        schema: "pyarrow.Schema",
        features: Mapping[str, Any],
        row: Callable[[int], "pyarrow.Table"],
        distinct: Callable[[str], Sequence[Any]],
    ):
        self.name, self.row = name, row
        pictures = [each.name for each in schema if holds_files(each.type)]
        self.image_column = first_of(IMAGES, pictures) or next(
            (each for each in pictures if each not in CONDITIONS), ""
        )
        if not self.image_column:
            raise UserError(f"{name} has no column of image files among {', '.join(schema.names)[:200]}")
        self.condition_column = first_of(CONDITIONS, pictures)
        self.caption_column = first_of(
            CAPTIONS, [each.name for each in schema if str(each.type).endswith("string")]
        )
        self.label_column, self.class_names = classes(schema, features, distinct)
        self.labels = {name: number for number, name in enumerate(self.class_names)}
        self.numbered = is_class_label(features.get(self.label_column))

    def value(self, number: int, column: str) -> Any:
        return self.row(number).column(column)[0].as_py() if column else None

    def label(self, number: int) -> int:
        """The class in a row.

        Raises:
            UserError: it has none, where others have one.
        """
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

    def info(self, number: int) -> PictureInfo:
        return read_info(*self._file(number, self.image_column))

    def image(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        return self._read(number, self.image_column, preprocessing)

    def condition_image(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        if not self.condition_column:
            raise UserError(f"{self.name} has no column {CONDITIONS[0]} of image files")
        return self._read(number, self.condition_column, preprocessing)

    def _read(self, number: int, column: str, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        file, name = self._file(number, column)
        raw = preprocessing.window is not None
        return read(file, preprocessing.channels, preprocessing.background, raw, name)

    def _file(self, number: int, column: str) -> tuple[bytes | Path, str]:
        """The bytes of an image file, or its path where the table has no more, and its name for messages."""
        value, name = self.value(number, column), f"{self.name}: row {number}"
        if isinstance(value, dict):
            value = value.get("bytes") or existing(Path(value.get("path") or "none"))
        if not value:
            raise UserError(f"{name} has no image in its column {column}")
        return value, name


def first_of(wanted: Sequence[str], names: Sequence[str]) -> str:
    """The first of the names that are wanted; "" for none."""
    return next((name for name in wanted if name in names), "")


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


def classes(
    schema: "pyarrow.Schema", features: Mapping[str, Any], distinct: Callable[[str], Sequence[Any]]
) -> tuple[str, tuple[str, ...]]:
    """The column of classes and their names in the order of their labels; "" and () for none."""
    known = [name for name in schema.names if is_class_label(features.get(name))]
    if known:
        column = first_of(LABELS, known) or known[0]
        return column, tuple(clean(str(name)) for name in features[column]["names"])
    simple = [
        each.name for each in schema if str(each.type).endswith("string") or "int" in str(each.type)[:5]
    ]
    column = first_of(LABELS, simple)
    if not column:
        return "", ()
    return column, tuple(
        sorted({str(value) for value in distinct(column) if value is not None}, key=natural_key)
    )
