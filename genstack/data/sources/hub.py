"""Image sets of the Hugging Face hub, fetched when named, and those that datasets saved to a folder."""

from functools import cached_property
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from genstack.data.images import Preprocessing
from genstack.data.records import Records
from genstack.data.source import PictureInfo, Source, bits_of_first
from genstack.errors import UserError, extra

PREFIX = "hf:"


class HubSource(Source):
    """`hf:user/name`, `hf:user/name:configuration`, or `hf:./folder` as `save_to_disk` wrote it.

    The part called train is read, or the only one. Columns are found as in Parquet files. Needs the extra
    `hf`; what is fetched is kept where datasets keeps it.
    """

    def __init__(self, name: str):
        self.name = name.removeprefix(PREFIX)
        self.rows = training_rows(name, load_set(name, self.name))
        if not len(self.rows):
            raise UserError(f"{name} holds no rows")
        first = self.rows[:1]
        self.records = Records(name, first.schema, self.rows.features.to_dict(), self._row, self.rows.unique)
        self.class_names = self.records.class_names

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return ("hf:user/name", "hf:./folder")

    @classmethod
    def claims(cls, name: str) -> bool:
        return name.startswith(PREFIX)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def bits(self) -> int:  # type: ignore[override]
        return bits_of_first(self)

    def key(self, number: int) -> str:
        return f"{Path(self.name).name}/{number}"

    def label(self, number: int) -> int:
        return self.records.label(number)

    def caption(self, number: int) -> str:
        return self.records.caption(number)

    def info(self, number: int) -> PictureInfo:
        return self.records.info(number)

    def image(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        return self.records.image(number, preprocessing)

    def condition_image(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        return self.records.condition_image(number, preprocessing)

    def _row(self, number: int) -> Any:
        return self.rows[number : number + 1]


def load_set(name: str, place: str) -> Any:
    """Load a data set with `datasets`, from a folder or the hub.

    Raises:
        UserError: nothing, for whatever reason.
    """
    with extra("hf", f"{name} needs datasets"):
        import datasets
    folder = Path(place).expanduser()
    saved = any((folder / part).exists() for part in ("state.json", "dataset_dict.json"))
    if place.startswith((".", "/", "~")) and not folder.is_dir():
        raise UserError(f"data source {name} does not exist; give a folder that datasets saved, or user/name")
    try:
        if saved:
            return datasets.load_from_disk(str(folder))
        if folder.is_dir():
            return datasets.load_dataset(str(folder))
        repository, _, configuration = place.partition(":")
        return datasets.load_dataset(repository, configuration or None)
    except Exception as error:  # datasets and what it calls raise nearly anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{name} cannot be opened: {reason}") from error


def training_rows(name: str, found: Any) -> Any:
    """The part called train, or the only one, whose rows come as Arrow tables."""
    if isinstance(found, dict):
        if "train" not in found and len(found) > 1:
            raise UserError(
                f"{name} has the parts {', '.join(found)}, and none called train; save one of them"
            )
        found = found["train"] if "train" in found else next(iter(found.values()))
    return found.with_format("arrow")
