"""The numbers of a run: `metrics.jsonl`, one JSON object per line."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytorch_lightning as pl

from genstack.atomic import replacing
from genstack.training.training import Training

METRICS = "metrics.jsonl"


class Metrics(pl.Callback):
    """Writes `step`, the optimizer steps done, then numbers by name; resuming drops the steps it will redo.

    It stands before whoever saves checkpoints, so that a checkpoint never knows of a step that has no line.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path):
        self.path = folder / METRICS

    def on_train_start(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.keep_until(trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, training: pl.LightningModule, *_: object) -> None:
        assert isinstance(training, Training)
        gathering = trainer.fit_loop.epoch_loop.batch_progress.current.ready % trainer.accumulate_grad_batches
        due = trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if due and not gathering:
            numbers = training.noted.everywhere(training.device)
            self.write(trainer, numbers)

    def on_validation_end(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        assert isinstance(training, Training)
        self.write(trainer, training.measured)

    def write(self, trainer: pl.Trainer, numbers: Mapping[str, float]) -> None:
        """Add a line with the numbers of this moment, and tell them to the loggers."""
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            logger.log_metrics(dict(numbers), step=trainer.global_step)
        line: dict[str, float | str] = {"step": trainer.global_step}
        line |= {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def keep_until(self, step: int) -> None:
        """Drop lines after a step, and a last line that was cut off."""
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        with replacing(self.path) as path:
            path.write_text("".join(kept), encoding="utf-8")
