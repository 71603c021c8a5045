"""genstack: train compressors, train priors, sample images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def train_compressor(**settings: Any) -> "Model":
    """Train a compressor as `genstack train compressor` does, and return it; a complete run is loaded.

    `train_compressor(config="vqgan", name="flowers", data={"source": "flowers/"})`.

    Args:
        settings: options of the command by name, with groups of settings as mappings.

    Raises:
        UserError: an invalid setting.
    """
    return _train("compressor", settings)


def train_prior(compressor: "str | Path", **settings: Any) -> "Model":
    """Train a prior as `genstack train prior` does, and return it with its compressor.

    Args:
        compressor: run or published file of the compressor.
        settings: options of the command by name, with groups of settings as mappings.

    Raises:
        UserError: an invalid setting.
    """
    return _train("prior", {"compressor": compressor, **settings})


def _train(stage: str, settings: "dict[str, Any]") -> "Model":
    from genstack import plugins

    run(f"train {stage}", **settings)
    files = settings.get("plugin", ())
    with plugins.use_temporarily(files if isinstance(files, list | tuple) else [files]):
        return load(Path(settings.get("runs", "runs")) / settings.get("name", stage))


def run(command: str, *places: Any, **settings: Any) -> None:
    """Run any other command, as `run("evaluate", "runs/flowers-prior", count=1000)`.

    Args:
        command: words after `genstack`.
        places: values that need no name.
        settings: options by name, with groups of settings as mappings.

    Raises:
        UserError: an invalid setting.
    """
    from genstack.cli import calls

    calls.run(command, *places, **settings)
