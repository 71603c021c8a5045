"""Options of published files: flags of `genstack import`, or lines of a note beside the file.

A note is `NAME.yaml` beside the file `NAME`, with lines such as `heads: 16`. A file with a note can be used
wherever a run can.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from genstack import hub
from genstack.checkpoints.damage import file_errors
from genstack.errors import UserError
from genstack.yaml_files import read_yaml

LARGEST = 2**16  # bytes of a note


class MissingOption(UserError):
    """An option is missing or wrong; `names` are the options that would help."""

    def __init__(self, message: str, *names: str):
        super().__init__(message)
        self.names = names


@dataclass(frozen=True)
class ImportOptions:
    """Facts that the tensors of a published file do not show; in a note, names have hyphens.

    Args:
        resolution: height and width of the images, like 256 or 256,384; 256 by default.
        heads: attention heads of a transformer.
        classes: number of classes of a transformer of taming-transformers, 0 for none.
        ema: use the EMA weights, if the file has both.
        compressor: run or published file of the compressor, if the file holds only a prior.
        scales: sides of the grids of a multi-scale compressor, like 1,2,3,4; VAR's by default.
        ibq: the file is an IBQ of SEED-Voken, which has the tensor names of a VQGAN.
        text_encoder: text encoder of a prior with captions: a folder, or hf:user/name; without it, the prior
            samples without captions.
    """

    resolution: str = ""
    heads: int = 0
    classes: int | None = None
    ema: bool = False
    compressor: str = ""
    scales: str = ""
    ibq: bool = False
    text_encoder: str = ""

    def __post_init__(self) -> None:
        _ = self.size, self.sides  # raise errors early

    @property
    def changed_options(self) -> set[str]:
        """Names of the options with other than default values."""
        return {field.name for field in fields(self) if getattr(self, field.name) != field.default}

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width; None for the format's default."""
        if not self.resolution:
            return None
        words = [word.strip() for word in self.resolution.replace("x", ",").split(",")]
        if len(words) > 2 or not all(word.isdecimal() and 0 < len(word) < 6 and int(word) for word in words):
            raise UserError(
                f"invalid resolution {self.resolution!r}; expected 256, or height and width as 256,384"
            )
        return int(words[0]), int(words[-1])

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the grids of `scales`."""
        words = [word.strip() for word in self.scales.split(",")] if self.scales else []
        if not all(word.isdecimal() and len(word) < 6 for word in words):
            raise UserError(f"invalid scales {self.scales!r}; expected sides of grids, such as 1,2,3,4")
        return tuple(int(word) for word in words)

    def over(self, others: "ImportOptions") -> "ImportOptions":
        """Override `others` by the options given here."""
        return replace(others, **{name: getattr(self, name) for name in self.changed_options})


NAMES = {field.name.replace("_", "-"): field for field in fields(ImportOptions)}


def note_path(published: Path) -> Path:
    """Return the path of the note of a published file or folder."""
    here = published if published.name else published.absolute()
    return here.with_name(here.name + ".yaml")


def note_options(published: Path) -> ImportOptions:
    """Read the options in a published file's note; the defaults without one."""
    path = note_path(published)
    values: dict[str, Any] = {}
    for name, value in read_note(path).items():
        field = NAMES[name]
        if field.type is str:
            values[field.name] = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        elif type(value) is (bool if field.type is bool else int):
            values[field.name] = value
        else:
            expected = "true or false" if field.type is bool else "a number"
            raise UserError(f"{path}: expected {expected} for {name}, got {str(value)[:40]!r}")
    for name in {"compressor", "text_encoder"} & values.keys():
        values[name] = local_path(path, values[name])
    if "compressor" in values and "compressor" in read_note(note_path(Path(values["compressor"]))):
        raise UserError(f"{path}: {values['compressor']} is a prior, not a compressor")
    with file_errors(path):
        return ImportOptions(**values)


def read_note(path: Path) -> Mapping[str, Any]:
    """Read names and values in a note; empty without one."""
    if not path.is_file():
        return {}
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path} is larger than {LARGEST} bytes; expected lines such as `heads: 16`")
    found = read_yaml(path)
    if not isinstance(found, dict) or not found.keys() <= NAMES.keys():
        raise UserError(
            f"invalid note {path}; expected lines `name: value` with the names {', '.join(NAMES)}"
        )
    return found


def local_path(path: Path, name: str) -> str:
    """Resolve a path in a note, relative to the note."""
    if hub.is_hub_name(name):
        raise UserError(f"{path}: expected a local path, got {name}; notes do not download")
    return str(path.parent / Path(name).expanduser())
