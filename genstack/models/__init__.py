"""Trained models that come with genstack; their names stand wherever a run is accepted."""

import warnings
from pathlib import Path

from genstack.hub import TENSORS

HOME = Path(__file__).parent
CARD = "README.md"


def known() -> dict[str, Path]:
    """Return the folders of the models by name."""
    return {file.parent.name: file.parent for file in sorted(HOME.glob(f"*/{TENSORS}"))}


def locate(place: str) -> str:
    """Return the folder of a model that comes with genstack; any other place stays as it is.

    Warns where a file or folder of the same name is passed over.
    """
    found = known().get(place)
    if found is None:
        return place
    if Path(place).exists():
        warnings.warn(
            f"'{place}' is the model that comes with genstack; the folder of that name is './{place}'",
            stacklevel=2,
        )
    return str(found)


def contains(place: Path) -> bool:
    """Return True for the folder of a model that comes with genstack."""
    return place.absolute().parent == HOME
