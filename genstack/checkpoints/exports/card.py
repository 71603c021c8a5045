"""The model card of an export, with the metadata block that the Hugging Face hub reads."""

import json
import re
from collections.abc import Mapping
from typing import Any

import genstack
from genstack.checkpoints.exports.export import Export
from genstack.errors import UserError
from genstack.model import Model

LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")


def card(model: Model, export: Export, place: str, licence: str, batch: int) -> str:
    """Write the card; see `exporting.write` for the arguments."""
    if licence and not LICENCE.fullmatch(licence):
        raise UserError(f"invalid licence {licence!r}; expected an identifier such as apache-2.0 or mit")
    sections = [
        head(licence),
        f"# {title(model)}",
        f"{what(model)} Files: {export.what}.",
        "## Data",
        data(model),
        "## Numbers",
        numbers(model),
        "## Licence",
        licence or "None was given: ask the authors before you use this model.",
        "## Use",
        f"```python\n{export.use(model, place, batch)}\n```",
    ]
    return "\n\n".join(sections) + "\n"


def head(licence: str) -> str:
    """Metadata for the hub."""
    named = f"license: {licence.lower()}\n" if licence else ""
    return f"---\n{named}library_name: genstack\ntags:\n- genstack\n- image-generation\n---"


def title(model: Model) -> str:
    """Class names of the parts."""
    parts = [type(model.compressor).__name__]
    if (quantizer := getattr(model.compressor, "quantizer", None)) is not None:
        parts.append(type(quantizer).__name__)
    if model.prior is not None:
        parts.append(type(model.prior).__name__)
    return ", ".join(parts)


def what(model: Model) -> str:
    """Inputs, outputs and size of the model."""
    seen = model.preprocessing
    lines = [f"A genstack {genstack.__version__} model for images of {seen.height} x {seen.width} pixels"]
    lines += [f" and {seen.channels} channels, {size(model.compressor)} parameters"]
    layout = model.layout
    grids = ", ".join(f"{height} x {width}" for height, width in layout.grids)
    lines += [f". An image becomes {layout.representation} ({grids})"]
    if model.prior is not None:
        lines += [f"; the prior has {size(model.prior)} more, condition {type(model.condition).__name__}"]
    return "".join(lines) + "."


def size(part: Any) -> str:
    """Number of parameters in millions."""
    return f"{sum(parameter.numel() for parameter in part.parameters()) / 1e6:.3g} M"


def data(model: Model) -> str:
    """Training data of the model."""
    made = model.metadata
    if "published" in made:
        return f"Read from {made.get('file')}, a {made['published']}; see there."
    lines = [f"Source: {made.get('data', 'unknown')}"]
    if "step" in made:
        lines.append(
            f"{made['step']} steps, {made.get('images', 'unknown')} images seen, seed {made.get('seed')}"
        )
    if model.classes:
        shown = ", ".join(model.classes[:10])
        more = f", and {len(model.classes) - 10} more" if len(model.classes) > 10 else ""
        lines.append(f"Classes: {shown}{more}")
    return "\n".join(f"- {line}" for line in lines)


def numbers(model: Model) -> str:
    """Validation metrics."""
    measured = model.metadata.get("measured")
    if not isinstance(measured, Mapping) or not measured:
        return "No metrics were measured."
    rows = [
        f"| {name} | {value:.6g} |" if isinstance(value, float | int) else f"| {name} | {json.dumps(value)} |"
        for name, value in measured.items()
    ]
    return "\n".join(["| validation metric | value |", "|---|---|", *rows])
