"""A trained model on disk: `model.safetensors`, complete, and `model.json` for people.

The description is in the header of the tensor file, so the two cannot disagree; `model.json` is a copy for
people and scripts.
"""

import json
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import genstack
from genstack import hub, models, plugins
from genstack.atomic import atomic_path
from genstack.checkpoints import import_options, published
from genstack.checkpoints.bounds import at_most, check_size
from genstack.checkpoints.damage import damage_errors, file_errors
from genstack.checkpoints.foreign import is_published
from genstack.compressor import Compressor
from genstack.data.images import Preprocessing
from genstack.description import build, describe, identity
from genstack.errors import UserError
from genstack.hub import TENSORS
from genstack.model import Model
from genstack.prior import Prior

FORMAT_VERSION = 2
DESCRIPTION = "model.json"


def save(model: Model, folder: Path) -> None:
    """Write a model into a folder; each file is replaced in one step."""
    text = described_text(model)
    state = model.modules().state_dict()
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    with atomic_path(folder / TENSORS) as path:
        save_file(tensors, path, metadata={"genstack": text})
    with atomic_path(folder / DESCRIPTION) as path:
        path.write_text(text + "\n", encoding="utf-8")


def described_text(model: Model) -> str:
    """Describe a model as JSON."""
    described = {
        "format_version": FORMAT_VERSION,
        "genstack_version": genstack.__version__,
        "compressor": describe(model.compressor),
        "prior": None if model.prior is None else describe(model.prior),
        "layout": describe(model.layout),
        "preprocessing": asdict(model.preprocessing),
        "classes": list(model.classes),
        "identity": identity(model),
        "made": model.metadata,
    }
    if used := plugins.plugins_defining(plugins.texts([described["compressor"], described["prior"]])):
        described["plugins"] = [plugin.record for plugin in used]
    return json.dumps(described, indent=2, ensure_ascii=False)


def load(place: Path) -> Model:
    """Load a model, on the CPU, in eval mode, without gradients.

    Args:
        place: a run or an exported folder, a file or folder of another project, or a repository of the
            Hugging Face hub (`hf:user/name`), which is downloaded.
    """
    if hub.is_hub_name(place):
        place = hub.fetch(place)
    path = weights_of(place)
    if not is_own(path):
        return published.load(place, import_options.note_options(place))
    with damage_errors(path), safe_open(path, framework="pt") as file:
        described = json.loads((file.metadata() or {}).get("genstack", "null"))
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    with file_errors(path):
        # allocate nothing before the size of the file is checked
        with torch.device("meta"), at_most(len(shapes)):
            blank = build_model(described, path)
        compare(shapes, blank)
        check_size(blank.modules(), path.stat().st_size)
        model = build_model(described, path)
    with damage_errors(path), safe_open(path, framework="pt") as file:
        state_dict = {key: file.get_tensor(key) for key in shapes}
    modules = model.modules()
    modules.load_state_dict(state_dict)
    modules.eval().requires_grad_(False)
    return model


def weights_of(place: Path) -> Path:
    """Return the weights file of a run, or the file or folder of another project."""
    if place.is_file() or not (place / TENSORS).is_file():
        if not place.exists():
            raise UserError(f"{place} not found; {_advice(place)}")
        if place.is_dir() and not is_published(place):
            raise UserError(
                f"{place} holds no {TENSORS}; give a run folder that has been validated at least once"
            )
        return place
    return place / TENSORS


def _advice(place: Path) -> str:
    """Suggest a run of the same name, a folder beside a missing one, or a model that comes with genstack."""
    if (run := Path("runs") / place).is_dir():
        return f"did you mean {run}?"
    folders = sorted(place.parent.iterdir()) if place.parent.is_dir() else []
    known = [*(str(each) for each in folders if each.is_dir()), *models.known()]
    near = get_close_matches(str(place), known, n=1)
    return f"did you mean {near[0]}?" if near else "give a run folder, or a published file"


def is_own(path: Path) -> bool:
    """Return True for a file of `save`, or any `model.safetensors` beside a `model.json`."""
    if path.name != TENSORS or not path.is_file():
        return False
    with damage_errors(path), safe_open(path, framework="pt") as file:
        return "genstack" in (file.metadata() or {}) or (path.parent / DESCRIPTION).exists()


def build_model(described: Any, path: Path) -> Model:
    """Build the model of a description, with new weights."""
    if not isinstance(described, dict) or "compressor" not in described:
        raise UserError(f"{path} was not written by genstack: its header has no description")
    if described.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {described.get('format_version')}, "
            f"this genstack reads {FORMAT_VERSION}; "
            f"use genstack {described.get('genstack_version')}"
        )
    plugins.require(described.get("plugins"), path)
    try:
        model = Model(
            build(described["compressor"]),
            Preprocessing(**described["preprocessing"]),
            tuple(described["classes"]),
            build(described["prior"]),
            described["made"],
        )
        check_parts(model)
    except UserError:
        raise
    except Exception as error:  # an invalid value may fail anywhere in a constructor
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise UserError(f"the description in {path} is incomplete or invalid: {reason}") from error
    return model


def check_parts(model: Model) -> None:
    """Check that a description is of a compressor and, if any, a prior over its codes or latents."""
    if not isinstance(model.compressor, Compressor) or not isinstance(model.prior, Prior | None):
        raise UserError(
            f"expected a compressor and a prior or none, "
            f"got {type(model.compressor).__name__} and {type(model.prior).__name__}"
        )
    if model.prior is not None and model.prior.layout != model.layout:
        raise UserError(f"the prior has layout {model.prior.layout}, but the compressor has {model.layout}")


def compare(shapes: dict[str, tuple[int, ...]], model: Model) -> None:
    """Compare names and shapes of tensors with the described model."""
    expected = {key: tuple(value.shape) for key, value in model.modules().state_dict().items()}
    missing, extra = sorted(expected.keys() - shapes.keys()), sorted(shapes.keys() - expected.keys())
    if missing or extra:
        raise UserError(f"tensors differ from the description: missing {missing[:5]}, unexpected {extra[:5]}")
    for key, shape in expected.items():
        if shapes[key] != shape:
            raise UserError(f"tensor {key} has shape {shapes[key]}, but the description says {shape}")
