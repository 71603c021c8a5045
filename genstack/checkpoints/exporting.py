"""Export of models to folders in other formats, with a model card."""

from pathlib import Path

import genstack.checkpoints.exports
from genstack import plugins
from genstack.atomic import new_folder
from genstack.checkpoints.exports.card import card
from genstack.checkpoints.exports.export import Export
from genstack.checkpoints.model_file import DESCRIPTION, described_text
from genstack.discovery import discover
from genstack.errors import UserError
from genstack.model import Model

CARD = "README.md"


def exports() -> dict[str, Export]:
    """All export formats by name."""
    found = discover(genstack.checkpoints.exports, Export)  # type: ignore[type-abstract]
    plugins.check_unique((kind.name, kind.__module__) for kind in found.values())
    return {kind.name: kind() for kind in sorted(found.values(), key=lambda kind: kind.name)}


def write(
    model: Model,
    export: Export,
    folder: Path,
    place: str = "",
    licence: str = "",
    batch: int = 1,
    half: bool = False,
) -> None:
    """Write a model and its card into a new folder.

    Args:
        model: model on the CPU, in eval mode.
        export: the format.
        folder: the new folder.
        place: where users will find it, if not in the folder.
        licence: an identifier such as apache-2.0; empty for none.
        batch: batch size of formats with fixed shapes.
        half: store weights in half precision; the model itself is changed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already; choose another --out")
    if batch < 1:
        raise UserError(f"batch must be at least 1, got {batch}")
    if half and not export.half:
        raise UserError(
            f"export {export.name} has no half precision; use --to safetensors, or leave out --half"
        )
    if half:
        model.modules().half()
    text = card(model, export, place or str(folder), licence, batch)
    with new_folder(folder) as partial:
        export.write(model, partial, batch)
        (partial / DESCRIPTION).write_text(described_text(model) + "\n", encoding="utf-8")
        (partial / CARD).write_text(text, encoding="utf-8")


def list_files(folder: Path) -> str:
    """List files and their sizes."""
    return ", ".join(f"{path.name} ({path.stat().st_size / 1e6:.2g} MB)" for path in sorted(folder.iterdir()))
