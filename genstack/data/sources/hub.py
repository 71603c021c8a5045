"""Image sets of the Hugging Face hub, and data sets that `datasets` saved to a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genstack.data.sources.table import TableSource
from genstack.data.text import expand
from genstack.errors import UserError, extra

PREFIX = "hf:"


class HubSource(TableSource):
    """`hf:user/name`, `hf:user/name:configuration`, or `hf:./folder` as `save_to_disk` wrote it.

    The split `train` is read, or the only one. Columns are found as in Parquet files. Needs the extra `hf`;
    downloads are cached by datasets.
    """

    def __init__(self, name: str):
        self.name, self.place = name, name.removeprefix(PREFIX)
        self.rows = training_rows(name, load_set(name, self.place))
        if not len(self.rows):
            raise UserError(f"{name} holds no rows")
        self.find_columns(self.rows[:1].schema, self.rows.features.to_dict())

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return ("hf:user/name", "hf:./folder")

    @classmethod
    def claims(cls, name: str) -> bool:
        return name.startswith(PREFIX)

    def __len__(self) -> int:
        return len(self.rows)

    def key(self, number: int) -> str:
        return f"{Path(self.place).name}/{number}"

    def row(self, number: int) -> Any:
        return self.rows[number : number + 1]

    def unique(self, column: str) -> Sequence[Any]:
        return self.rows.unique(column) if column else ()


def load_set(name: str, place: str) -> Any:
    """Load a data set with `datasets`, from a folder or the hub."""
    with extra("hf", f"{name} needs datasets"):
        import datasets
    folder = expand(place)
    saved = any((folder / part).exists() for part in ("state.json", "dataset_dict.json"))
    if place.startswith((".", "/", "~")) and not folder.is_dir():
        raise UserError(f"data source {name} not found; give a folder that datasets saved, or user/name")
    try:
        if saved:
            return datasets.load_from_disk(str(folder))
        if folder.is_dir():
            return datasets.load_dataset(str(folder))
        repository, _, configuration = place.partition(":")
        return datasets.load_dataset(repository, configuration or None)
    except Exception as error:  # datasets raises nearly anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{name} cannot be opened: {reason}") from error


def training_rows(name: str, found: Any) -> Any:
    """Return the split `train`, or the only one, whose rows are Arrow tables."""
    if isinstance(found, dict):
        if "train" not in found and len(found) > 1:
            raise UserError(
                f"{name} has the splits {', '.join(found)}, but none called train; save one of them"
            )
        found = found["train"] if "train" in found else next(iter(found.values()))
    return found.with_format("arrow")
