"""Files beside a run or a published model, and the images that a model reads."""

from pathlib import Path
from typing import Any

from genstack import hub
from genstack.checkpoints.model_file import TENSORS, load
from genstack.training.callbacks.metrics import METRICS
from genstack.training.run import CONFIG, Run


def is_run(place: Path) -> bool:
    """Return True if a folder is a run, finished or not."""
    return any((place / name).is_file() for name in (CONFIG, METRICS, TENSORS))


def path_beside(place: Path, name: str) -> Path:
    """A path inside a run, beside a published file, or in the working folder for a model of the hub."""
    if is_run(place):
        return place / name
    longer = f"{place.name}.{name}"
    return Path(longer) if hub.named(place) else place.with_name(longer)


def data_settings(place: Path) -> dict[str, Any]:
    """Data settings of a run, or of pictures as a published model reads them."""
    if (place / CONFIG).is_file():
        return dict(Run(place).config()["data"])
    return load(place).preprocessing.settings
