"""Keeps what a run has learned: the file to resume from and the model to use, also when somebody stops it."""

import math
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO

from genstack.atomic import replacing
from genstack.checkpoints.files import save
from genstack.errors import UserError
from genstack.training.training import Training

LAST = Path("checkpoints/last.ckpt")
FORMAT_VERSION = 1
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """The run was stopped from outside, and all is saved. `number` is that of the signal."""

    def __init__(self, number: int, step: int):
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}")
        self.number, self.step = number, step


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that appear by renaming, so that none is ever half written."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with replacing(Path(path)) as partial:
            torch.save(checkpoint | {"format_version": FORMAT_VERSION}, partial)

    def load_checkpoint(self, path: Any, *arguments: Any, **named: Any) -> dict[str, Any]:
        checkpoint = super().load_checkpoint(path, *arguments, **named)
        version = checkpoint.get("format_version")
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path} has format version {version}, this genstack reads {FORMAT_VERSION}; "
                f"continue the run with the genstack that it began with"
            )
        return checkpoint


class Keeper(pl.Callback):
    """Saves the run: after every validation, every some minutes, and on Ctrl-C or SIGTERM.

    Args:
        folder: of the run.
        minutes: between two checkpoints, by the clock; 0 for one after every step.
    """

    def __init__(self, folder: Path, minutes: float):
        self.folder, self.minutes = folder, minutes
        self.least = float("inf")
        self.asked_to_stop: int | None = None
        self.handlers: dict[int, Any] = {}

    def state_dict(self) -> dict[str, float]:
        return {"least": self.least}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.least = state_dict["least"]

    def on_train_start(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        self.saved_at = time.monotonic()
        self.handlers = {number: signal.signal(number, self.stop) for number in SIGNALS}

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal, to stop after the step; the second one stops at once."""
        if self.asked_to_stop is not None:
            raise KeyboardInterrupt
        self.asked_to_stop = number

    def on_train_batch_end(self, trainer: pl.Trainer, training: pl.LightningModule, *_: Any) -> None:
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if batches % trainer.accumulate_grad_batches:
            return  # gradients are still being gathered: nothing here could be resumed
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True  # Lightning then validates once more, whatever the interval
            return
        if batches % (trainer.val_check_batch or math.inf) == 0:
            return  # resumed from here, a run would never catch up on the validation that follows, and saves
        due = time.monotonic() - self.saved_at >= 60 * self.minutes
        stopping = self.stopping(trainer)
        if stopping or trainer.strategy.broadcast(due):
            self.checkpoint(trainer)
        if stopping:
            raise Stopped(self.asked_to_stop or signal.SIGTERM, trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        assert isinstance(training, Training)
        numbers = {
            name: float(value) for name, value in trainer.callback_metrics.items() if name[:4] == "val/"
        }
        judged = numbers.get(training.best, -math.inf)
        if judged <= self.least:
            self.least = judged
            if trainer.is_global_zero:
                save(training.model_now(numbers), self.folder)
        self.checkpoint(trainer)
        if trainer.global_step < trainer.max_steps and self.stopping(trainer):
            raise Stopped(self.asked_to_stop or signal.SIGTERM, trainer.global_step)

    def stopping(self, trainer: pl.Trainer) -> bool:
        """Whether any process was asked to stop."""
        return trainer.strategy.reduce_boolean_decision(self.asked_to_stop is not None, all=False)

    def checkpoint(self, trainer: pl.Trainer) -> None:
        """Write the file to resume from."""
        trainer.save_checkpoint(self.folder / LAST)
        self.saved_at = time.monotonic()

    def on_exception(
        self, trainer: pl.Trainer, training: pl.LightningModule, exception: BaseException
    ) -> None:
        self.listen_no_more()

    def teardown(self, trainer: pl.Trainer, training: pl.LightningModule, stage: str) -> None:
        self.listen_no_more()

    def listen_no_more(self) -> None:
        """Give signals back to whoever heard them before."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers.clear()
