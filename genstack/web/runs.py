"""Runs that a page shows; a model is loaded again when its training has written another."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from genstack import models
from genstack.checkpoints.model_file import TENSORS, load
from genstack.cli.parsing.device import choose_device
from genstack.model import Model
from genstack.report import history
from genstack.report.missing import Missing, attempt
from genstack.report.run_data import RunData, read_cards
from genstack.training.files import CONFIG, METRICS
from genstack.training.run import Run

Stamp = tuple[int, int]


@dataclass
class OpenRun:
    """A run, a published file, or a model that comes with genstack.

    Args:
        place: run folder or file.
        device: device of the model.
    """

    place: Path
    device: str = "cpu"
    _loaded: tuple[Stamp, Model] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Name on the command line."""
        return self.place.name if models.contains(self.place) else str(self.place)

    @property
    def trained_here(self) -> bool:
        """True for the run folder of a training, finished or not."""
        return any((self.place / name).is_file() for name in (CONFIG, METRICS))

    @property
    def has_model(self) -> bool:
        """False for a run that has not been validated yet."""
        return not self.trained_here or self._weights.is_file()

    @property
    def model(self) -> Model:
        """The model, as the training wrote it last."""
        now = self._stamp()
        if self._loaded is None or self._loaded[0] != now:
            self._loaded = now, load(self.place).to(self.device)
        return self._loaded[1]

    @property
    def _weights(self) -> Path:
        return self.place / TENSORS

    def _stamp(self) -> Stamp:
        """Return time and size of the weights of a run; weights of other models do not change."""
        found = self._weights.stat() if self._weights.is_file() else None
        return (found.st_mtime_ns, found.st_size) if found else (0, 0)

    def training_stamp(self) -> str:
        """Times of the last metrics and pictures; they change as the training goes on."""
        files = [self.place / METRICS, self.place / "images"]
        return " ".join(str(file.stat().st_mtime_ns) for file in files if file.exists())

    @cached_property
    def _run(self) -> Run:
        return Run(self.place)

    def config(self) -> dict[str, Any] | Missing:
        """Settings of the training."""
        return attempt(self._run.config)

    def training(self) -> RunData:
        """Settings and metrics of the training so far, without model and data."""
        skipped = Missing("the page of a training does not read it")
        return RunData(
            folder=self.place,
            config=self.config(),
            history=history.read(self.place / METRICS),
            model=skipped,
            data=skipped,
            cards=read_cards(self.place),
        )


def open_runs(places: list[str], device: str) -> list[OpenRun]:
    """Open runs, and load their models.

    Raises:
        UserError: a place is neither a run nor a model.
    """
    chosen = choose_device(device)
    runs = [OpenRun(Path(place), chosen) for place in dict.fromkeys(places)]
    for run in runs:
        if run.has_model:
            _ = run.model
    return runs
