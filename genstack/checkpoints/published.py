"""Models that other projects published: the kind is recognised from the tensors, the model is one of ours."""

from dataclasses import replace
from pathlib import Path

import genstack.checkpoints.formats
from genstack.checkpoints.damage import DAMAGE, damage_errors, file_errors, reason
from genstack.checkpoints.foreign import read
from genstack.checkpoints.formats.format import SHOWN, Format
from genstack.checkpoints.import_options import ImportOptions, MissingOption, note_path
from genstack.discovery import discover
from genstack.errors import UserError
from genstack.model import Model

MOST_PARTS = 16  # prefixes under which a model is looked for


def formats() -> dict[str, type[Format]]:
    """Every format that genstack reads."""
    return discover(genstack.checkpoints.formats, Format)  # type: ignore[type-abstract]


def load(path: Path, options: ImportOptions = ImportOptions()) -> Model:
    """The model in a published file or folder, on the CPU, in eval mode, without gradients.

    Args:
        path: of the file, or of a folder with `config.json`.
        options: what the tensors do not tell.

    Raises:
        UserError: the file is damaged, of no known kind, or does not tell enough.
    """
    file = read(path)
    with damage_errors(path):
        names = file.names()
    with file_errors(path):
        kind, prefix = recognise(names)
        try:
            model = kind.read(replace(file, prefix=prefix), options)
        except MissingOption as error:
            missing = [name.replace("_", "-") for name in error.names if name not in options.given]
            lines = " and ".join(f"`{name}: ...`" for name in missing)
            place = f" (or write {lines} into {note_path(path)})" if missing else ""
            raise UserError(f"{error}{place}") from error
        except UserError:
            raise
        except DAMAGE as error:  # whatever the tensors, no format should fail like this
            raise UserError(
                f"it looks like {kind.what}, and cannot be read ({reason(error)}): it is damaged, or "
                "genstack has a fault; GENSTACK_TRACEBACK=1 shows where"
            ) from error
    model.metadata |= {"published": kind.what, "file": path.name} | ({"part": prefix[:-1]} if prefix else {})
    return model


def format_of(names: set[str], known: list[Format]) -> Format | None:
    """Return the first format that tensors with these names fit."""
    return next((kind for kind in known if kind.fits(dict.fromkeys(names))), None)


def recognise(names: set[str]) -> tuple[Format, str]:
    """Return the format of tensors with these names, and the prefix before the names that it knows.

    A model may lie within a larger one, such as a compressor in a diffusion model or in a training's file.

    Raises:
        UserError: there is none; the message says which is nearest, and what does not belong to it.
    """
    known = [kind() for kind in formats().values()]
    if kind := format_of(names, known):
        return kind, ""
    ends = tuple(f".{kind.marks[0]}" for kind in known)
    starts = {name[: -len(end) + 1] for name in names for end in ends if name.endswith(end)}
    found: dict[str, Format] = {}
    for start in sorted(starts)[:MOST_PARTS]:
        inner = {name.removeprefix(start) for name in names if name.startswith(start)}
        if not start.startswith(tuple(found)) and (kind := format_of(inner, known)):
            found[start] = kind
    if len(found) == 1:
        ((prefix, kind),) = found.items()
        return kind, prefix
    if found:
        raise UserError(
            f"it holds several models ({', '.join(found)}); save one of them to a file of its own"
        )

    def likeness(kind: Format) -> int:
        return sum(name in names for name in kind.marks) - sum(name in names for name in kind.unlike)

    nearest = max(known, key=likeness)
    lacking = [name for name in nearest.marks if name not in names]
    if len(lacking) == len(nearest.marks):
        shown = ", ".join(sorted(names)[:SHOWN])
        raise UserError(
            f"its kind is unknown (`genstack import --list` shows what is); its tensors are {shown}, ..."
        )
    if lacking:
        raise UserError(f"it looks like a {nearest.what}, but {', '.join(lacking)} is missing")
    extra = [name for name in nearest.unlike if name in names]
    raise UserError(
        f"it looks like a {nearest.what}, but has {', '.join(extra)} besides, which is not supported"
    )
