"""Checkpoints and the model file, saved after validation, every few minutes, and on signals."""

import math
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from genstack.atomic import atomic_path
from genstack.checkpoints.model_file import save
from genstack.errors import UserError
from genstack.training.sharded_checkpoint import newest
from genstack.training.training import Training

LAST = Path("checkpoints/last.ckpt")
FORMAT_VERSION = 2
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """Raised after a signal, once everything is saved."""

    def __init__(self, number: int, step: int):
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}")
        self.number, self.step = number, step


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints in one file, written atomically."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        try:  # torch hides the cause of errors if it opens the file itself
            with atomic_path(Path(path)) as partial, partial.open("wb") as file:
                torch.save(checkpoint | {"format_version": FORMAT_VERSION}, file)
        except RuntimeError as error:  # raised by torch after the file's error
            reason = error.__context__ if isinstance(error.__context__, OSError) else error
            raise OSError(f"{path} cannot be written: {reason}; the previous checkpoint is kept") from error

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        if Path(path).is_dir():
            raise UserError(f"{path} is a checkpoint of sharded weights; continue the run with strategy fsdp")
        checkpoint = super().load_checkpoint(path, *arguments, **options)
        version = checkpoint.get("format_version")
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path} has format version {version}, this genstack reads {FORMAT_VERSION}; "
                f"continue the run with the genstack that it began with"
            )
        return checkpoint


def latest(folder: Path) -> Path | None:
    """Find the checkpoint of a run: a file, or a folder of shards; None before the first one."""
    file = folder / LAST
    return file if file.exists() else newest(file.parent)


class CheckpointCallback(pl.Callback):
    """Save checkpoints after each validation, every few minutes, and on Ctrl-C or SIGTERM.

    Args:
        folder: run folder.
        minutes: minutes between two checkpoints; 0 for one after every step.
        config: settings of the run, saved in each checkpoint.
    """

    def __init__(self, folder: Path, minutes: float, config: dict[str, Any]):
        self.folder, self.minutes, self.config = folder, minutes, config
        self.lowest = float("inf")
        self.signal: int | None = None
        self.handlers: dict[int, Any] = {}

    def state_dict(self) -> dict[str, float]:
        return {"lowest": self.lowest}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.lowest = state_dict["lowest"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, training: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["config"] = self.config
        checkpoint["threads"] = torch.get_num_threads()
        checkpoint["stopped"] = trainer.should_stop and trainer.global_step < trainer.max_steps

    def setup(self, trainer: pl.Trainer, training: pl.LightningModule, stage: str) -> None:
        """Check that all processes resume from the same checkpoint."""
        path = latest(self.folder)
        found = None if path is None else (path.name, path.stat().st_size if path.is_file() else 0)
        if not trainer.strategy.reduce_boolean_decision(trainer.strategy.broadcast(found) == found, all=True):
            raise UserError(
                f"processes see different files in {self.folder / LAST.parent}; choose a folder --runs that "
                f"every machine shares"
            )

    def on_train_start(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        self.saved_at = time.monotonic()
        self.handlers = {number: signal.signal(number, self.stop) for number in SIGNALS}

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Stop after the step at the first signal, and at once at the second."""
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

    def on_train_batch_end(
        self, trainer: pl.Trainer, training: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        batches = batch_idx + 1
        if batches % trainer.accumulate_grad_batches:
            return  # in the middle of a step
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True  # Lightning then validates once more, at any interval
            return
        if batches % (trainer.val_check_batch or math.inf) == 0:
            return  # validation comes next; a run resumed from here would skip it
        due = time.monotonic() - self.saved_at >= 60 * self.minutes
        stopping = self.stopping(trainer)
        if stopping or trainer.strategy.broadcast(due):
            self.checkpoint(trainer)
        if stopping:
            raise Stopped(self.signal or signal.SIGTERM, trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        assert isinstance(training, Training)
        number = training.validation_metrics.get(training.best_metric, -math.inf)
        if number <= self.lowest:
            self.lowest = number
            weights = training.full_model()
            if weights is not None and trainer.is_global_zero:
                save(training.to_model(weights, training.validation_metrics), self.folder)
        self.checkpoint(trainer)
        if trainer.global_step < trainer.max_steps and self.stopping(trainer):
            raise Stopped(self.signal or signal.SIGTERM, trainer.global_step)

    def stopping(self, trainer: pl.Trainer) -> bool:
        """Return True if any process received a signal."""
        return trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)

    def checkpoint(self, trainer: pl.Trainer) -> None:
        """Save a checkpoint of this step."""
        trainer.save_checkpoint(self.folder / LAST)
        self.saved_at = time.monotonic()

    def on_exception(
        self, trainer: pl.Trainer, training: pl.LightningModule, exception: BaseException
    ) -> None:
        self.restore_handlers()

    def teardown(self, trainer: pl.Trainer, training: pl.LightningModule, stage: str) -> None:
        self.restore_handlers()

    def restore_handlers(self) -> None:
        """Restore the signal handlers from before training.

        Handlers that Lightning has restored itself stay: those from then keep a finished trainer alive.
        """
        for number, handler in self.handlers.items():
            if signal.getsignal(number) == self.stop:
                signal.signal(number, handler)
        self.handlers.clear()
