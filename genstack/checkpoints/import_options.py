"""What a user says of a published file, in a file beside it: `heads: 16` in `c2i_L_256.pt.yaml`.

So the file stands wherever a run does, and what its tensors do not tell is said once. The names are those of
the options of `genstack import`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from genstack import hub
from genstack.checkpoints.formats.format import FLAGS, Options
from genstack.errors import UserError
from genstack.model import Model

LARGEST = 2**16  # bytes of such a file
KINDS = {"heads": int, "classes": int, "ema": bool, "ibq": bool}
NAMES = {flag.removeprefix("--"): option for option, flag in FLAGS.items()}


def place_of(published: Path) -> Path:
    """The file with what is said of a published file or folder."""
    here = published if published.name else published.absolute()
    return here.with_name(here.name + ".yaml")


def options(published: Path, load: Callable[[Path], Model]) -> Options:
    """What is said of a published file; nothing where there is no such file.

    Args:
        published: the file, or folder.
        load: opens the compressor that is named; its place counts from where the note lies.

    Raises:
        UserError: the note says what cannot be.
    """
    path = place_of(published)
    said = read(path)
    values: dict[str, Any] = {}
    for name, value in said.items():
        if name == "resolution":
            values["size"] = size(plain(value))
        elif name == "scales":
            values["scales"] = sides(plain(value))
        elif name == "compressor":
            values["compressor"] = compressor(path, str(value), load)
        elif name == "text-encoder":
            values["encoder"] = here(path, str(value))
        elif type(value) is not KINDS[name]:
            wanted = "a number" if KINDS[name] is int else "true or false"
            raise UserError(f"{path}: {name} is {str(value)[:40]}, and {wanted} is expected")
        else:
            values[NAMES[name]] = value
    return Options(**values)


def read(path: Path) -> Mapping[str, Any]:
    """The names and values in a note."""
    if not path.is_file():
        return {}
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path} is larger than {LARGEST} bytes; it takes lines such as `heads: 16`")
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no YAML text: {error}") from error
    if not isinstance(said, dict) or not said.keys() <= NAMES.keys():
        raise UserError(f"{path} takes lines `name: value` with the names {', '.join(NAMES)}, and no others")
    return said


def compressor(path: Path, name: str, load: Callable[[Path], Model]) -> Model:
    """The compressor that a note names."""
    place = Path(here(path, name))
    if "compressor" in read(place_of(place)):
        raise UserError(f"{path}: {name} needs a compressor itself, and is none")
    return load(place)


def here(path: Path, name: str) -> str:
    """What a note names on this machine; its place counts from where the note lies."""
    if hub.named(name):
        raise UserError(f"{path}: a note fetches nothing; name a place on this machine, not {name}")
    return str(path.parent / Path(name).expanduser())


def plain(value: Any) -> str:
    """A number, or a list of them, as on the command line."""
    return ",".join(str(item) for item in value) if isinstance(value, list) else str(value)


def size(resolution: str) -> tuple[int, int] | None:
    """Height and width of a text like 256 or 256,384."""
    if not resolution:
        return None
    words = [word.strip() for word in resolution.replace("x", ",").split(",")]
    if len(words) > 2 or not all(word.isdecimal() and len(word) < 6 and int(word) > 0 for word in words):
        raise UserError(f"resolution {resolution} is no size; write 256, or height and width as 256,384")
    return int(words[0]), int(words[-1])


def sides(scales: str) -> tuple[int, ...]:
    """The numbers of a text like 1,2,3."""
    words = [word.strip() for word in scales.split(",")] if scales else []
    if not all(word.isdecimal() and len(word) < 6 for word in words):
        raise UserError(f"scales {scales} are no sides of grids; write such as 1,2,3,4")
    return tuple(int(word) for word in words)
