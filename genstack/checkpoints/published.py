"""Models published by other projects: the format is recognised from names of tensors."""

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

MOST_PARTS = 16  # prefixes that are searched for a model


def formats() -> dict[str, type[Format]]:
    """All formats that genstack reads."""
    return discover(genstack.checkpoints.formats, Format)  # type: ignore[type-abstract]


def load(path: Path, options: ImportOptions = ImportOptions()) -> Model:
    """Load a published file, or a folder with `config.json`; on the CPU, in eval mode, without gradients."""
    file = read(path)
    with damage_errors(path):
        names = file.names()
    with file_errors(path):
        kind, prefix = recognise(names)
        try:
            model = kind.read(replace(file, prefix=prefix), options)
        except MissingOption as error:
            missing = [name.replace("_", "-") for name in error.names if name not in options.changed_options]
            lines = " and ".join(f"`{name}: ...`" for name in missing)
            advice = f" (or write {lines} into {note_path(path)})" if missing else ""
            raise UserError(f"{error}{advice}") from error
        except UserError:
            raise
        except DAMAGE as error:  # no format should raise these
            raise UserError(
                f"it looks like {kind.what} but cannot be read ({reason(error)}): it is damaged, or this "
                "is a bug of genstack; GENSTACK_TRACEBACK=1 shows where"
            ) from error
    model.metadata |= {"published": kind.what, "file": path.name} | ({"part": prefix[:-1]} if prefix else {})
    return model


def format_of(names: set[str], known: list[Format]) -> Format | None:
    """Return the first format that has tensors with these names."""
    return next((kind for kind in known if kind.fits(dict.fromkeys(names))), None)


def recognise(names: set[str]) -> tuple[Format, str]:
    """Return the format that these tensor names match, and the prefix of its tensors.

    A model may be part of a larger one, such as the compressor of a diffusion model.
    """
    known = [kind() for kind in formats().values()]
    if kind := format_of(names, known):
        return kind, ""
    ends = tuple(f".{kind.required[0]}" for kind in known)
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
        raise UserError(f"it holds several models ({', '.join(found)}); save one of them to a separate file")

    def likeness(kind: Format) -> int:
        return sum(name in names for name in kind.required) - sum(name in names for name in kind.excluded)

    nearest = max(known, key=likeness)
    lacking = [name for name in nearest.required if name not in names]
    if len(lacking) > len(nearest.required) / 2:
        shown = ", ".join(sorted(names)[:SHOWN])
        raise UserError(f"unknown format (see `genstack import --list`); its tensors are {shown}, ...")
    if lacking:
        raise UserError(f"it looks like a {nearest.what}, but has no {', '.join(lacking)}")
    extra = [name for name in nearest.excluded if name in names]
    raise UserError(
        f"it looks like a {nearest.what}, but also has {', '.join(extra)}, which is not supported"
    )
