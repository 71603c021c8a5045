"""Where what is made of a model lies: in the folder of a run, or beside a published file or folder."""

from pathlib import Path

from genstack.checkpoints import hub
from genstack.checkpoints.files import TENSORS
from genstack.training.metrics import METRICS
from genstack.training.run import CONFIG


def is_run(place: Path) -> bool:
    """Whether this is the folder of a run, however far it came."""
    return any((place / name).is_file() for name in (CONFIG, METRICS, TENSORS))


def about(place: Path, name: str) -> Path:
    """Where something about a model lies: in its run, beside a published file, here for one on the hub."""
    if is_run(place):
        return place / name
    longer = f"{place.name}.{name}"
    return Path(longer) if hub.named(place) else place.with_name(longer)
