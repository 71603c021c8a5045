"""A model's place, a run or a published file: where what is made of it lies, and what images it reads."""

from pathlib import Path
from typing import Any

from genstack import hub
from genstack.checkpoints.model_file import TENSORS, load
from genstack.training.callbacks.metrics import METRICS
from genstack.training.run import CONFIG, Run


def is_run(place: Path) -> bool:
    """Whether this is the folder of a run, however far it came."""
    return any((place / name).is_file() for name in (CONFIG, METRICS, TENSORS))


def about(place: Path, name: str) -> Path:
    """Where something about a model lies: in its run, beside a published file, here for one on the hub."""
    if is_run(place):
        return place / name
    longer = f"{place.name}.{name}"
    return Path(longer) if hub.named(place) else place.with_name(longer)


def images_of(place: Path) -> dict[str, Any]:
    """Settings of the data that a run trained on, or of pictures as a published model reads them."""
    if (place / CONFIG).is_file():
        return dict(Run(place).config()["data"])
    return load(place).preprocessing.settings
