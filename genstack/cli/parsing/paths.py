"""Paths on the command line, and paths beside a run or a published file."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genstack import hub, models
from genstack.checkpoints.model_file import TENSORS, load
from genstack.data.codes.header import encoded_source
from genstack.data.images import SUFFIXES, file_name, read_mark
from genstack.errors import UserError
from genstack.training.files import CONFIG, METRICS

#: A path, or the name of a published model. Help shows options of this type as `path`.
Place = str
#: A run, a published file, a repository of the hub, or a model that comes with genstack, by its name.
Trained = str


def expand(value: Any) -> Any:
    """Replace `~` in a path, or in several, by the home folder."""
    if isinstance(value, list):
        return [expand(each) for each in value]
    return os.path.expanduser(value) if isinstance(value, str) else value  # noqa: PTH111 - keeps hf:a//b


def check_name(name: str) -> None:
    """Raise a UserError unless a run's name is the name of one folder."""
    if name in ("", ".", "..") or {"/", "\\", "\0"} & {*name}:
        raise UserError(
            f"invalid --name '{name}': expected the name of one folder; choose its parent by --runs"
        )


def check_png(out: Place) -> Path:
    """Return the path of a picture to write.

    Raises:
        UserError: its name does not end in .png, or a file that genstack did not write has it.
    """
    if not out.lower().endswith(".png"):
        raise UserError(
            f"invalid --out '{out}': pictures are written as PNG; expected a name that ends in .png"
        )
    check_overwriting(path := Path(out))
    return path


def check_sheet_or_folder(out: Place, parts: Sequence[str], count: int) -> Path:
    """Return the path of a sheet to write, or of a folder for images, whose files are replaced.

    Args:
        out: a name that ends in .png for a sheet; any other name is a folder's.
        parts: folders in it that take the images; "" for itself.
        count: number of images in each.

    Raises:
        UserError: a picture of another format or a file has the name, or the folder holds other files.
    """
    path = Path(out)
    if path.suffix.lower() in SUFFIXES:
        return check_png(out)
    if path.is_file():
        raise UserError(f"{path} is a file; expected a name that ends in .png, or a folder")
    written = {path / part / file_name(index) for part in parts for index in range(count)}
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        if file not in written:
            raise UserError(f"{path} holds other files, such as {file.name}; choose another --out")
        check_overwriting(file)
    return path


def is_sheet(out: Path) -> bool:
    """Return True if an output is a sheet, not a folder of images."""
    return out.suffix.lower() == ".png"


def check_overwriting(path: Path) -> None:
    """Raise a UserError if a picture would replace a file that genstack did not write."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; choose another --out")
    if path.is_file() and path.stat().st_size and read_mark(path) is None:
        raise UserError(f"{path} exists, and genstack did not write it; choose another --out")


def is_run(place: Path) -> bool:
    """Return True if a folder is a run, finished or not."""
    return any((place / name).is_file() for name in (CONFIG, METRICS, TENSORS))


def path_beside(place: Path, name: str) -> Path:
    """Path in a run folder, beside a published file, or else in the working folder.

    The latter is for models of the hub and for those that come with genstack.
    """
    longer = f"{place.name}.{name}"
    if hub.is_hub_name(place) or models.contains(place):
        return Path(longer)
    return place / name if is_run(place) else place.with_name(longer)


def data_settings(place: Path) -> dict[str, Any]:
    """Data settings of a run, of the encoded images for an archive; or a published model's preprocessing."""
    if (place / CONFIG).is_file():
        from genstack.training.run import Run  # imports Lightning, which takes three seconds

        settings = Run(place).config()["data"]
        return {**settings, "source": encoded_source(settings["source"])}
    return load(place).preprocessing.settings
