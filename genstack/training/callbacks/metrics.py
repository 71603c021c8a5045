"""Metrics of a run: `metrics.jsonl`, one JSON object per line."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from genstack.atomic import atomic_path
from genstack.training.files import METRICS
from genstack.training.training import Training


class MetricsLogger(pl.Callback):
    """Write the step and its metrics by name; a resumed run drops the lines that it will redo.

    It runs before the checkpoint callback, so that each saved step has its line.

    Args:
        folder: run folder.
    """

    def __init__(self, folder: Path):
        self.path = folder / METRICS

    def on_train_start(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.drop_after(trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, training: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(training, Training)
        within_step = (batch_idx + 1) % trainer.accumulate_grad_batches
        due = trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if due and not within_step:
            self.write(trainer, training.step_metrics.means(training.device))

    def on_validation_end(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        assert isinstance(training, Training)
        self.write(trainer, training.validation_metrics)

    def write(self, trainer: pl.Trainer, numbers: Mapping[str, float]) -> None:
        """Append a line, and log the metrics to all loggers."""
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            logger.log_metrics(dict(numbers), step=trainer.global_step)
        line: dict[str, float | str] = {"step": trainer.global_step}
        line |= {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def drop_after(self, step: int) -> None:
        """Drop lines after a step, and an incomplete last line."""
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        with atomic_path(self.path) as path:
            path.write_text("".join(kept), encoding="utf-8")
