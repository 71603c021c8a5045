"""genstack: train compressors, train priors, sample images."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genstack.model import Model

__version__ = "0.1.0"


def load(place: "str | Path") -> "Model":
    """Load a run folder or a published file, on the CPU, in eval mode.

    Args:
        place: of the run, or of the file (docs/published_weights.md lists the kinds); or the name of a model
            that comes with genstack (docs/models.md).
    """
    from genstack import models  # keeps `import genstack` fast
    from genstack.checkpoints import model_file

    return model_file.load(Path(models.locate(place) if isinstance(place, str) else place).expanduser())
