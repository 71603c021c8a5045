"""Keeps what a run has learned: the file to resume from and the model to use, also when somebody stops it."""

import math
import signal
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO

from genstack.atomic import replacing
from genstack.checkpoints.model_file import save
from genstack.errors import UserError
from genstack.training.sharded_checkpoint import Sharded, newest
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
        try:
            with (
                replacing(Path(path)) as partial,
                partial.open("wb") as file,
            ):  # whose errors say what is wrong
                torch.save(checkpoint | {"format_version": FORMAT_VERSION}, file)
        except RuntimeError as error:  # of torch, after the file's own
            reason = error.__context__ if isinstance(error.__context__, OSError) else error
            raise OSError(f"{path} cannot be written: {reason}; what was saved before is whole") from error

    def load_checkpoint(self, path: Any, *arguments: Any, **named: Any) -> dict[str, Any]:
        if Path(path).is_dir():
            raise UserError(
                f"{path} was saved in parts, by processes that shared the weights; continue the run with "
                f"strategy fsdp, on any number of devices"
            )
        checkpoint = super().load_checkpoint(path, *arguments, **named)
        version = checkpoint.get("format_version")
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path} has format version {version}, this genstack reads {FORMAT_VERSION}; "
                f"continue the run with the genstack that it began with"
            )
        return checkpoint


def latest(folder: Path) -> Path | None:
    """What a run resumes from: a file, or a folder of parts; None where it has saved nothing."""
    whole = folder / LAST
    return whole if whole.exists() else newest(whole)


class CheckpointCallback(pl.Callback):
    """Saves the run: after every validation, every some minutes, on Ctrl-C or SIGTERM, and on errors.

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

    def setup(self, trainer: pl.Trainer, training: pl.LightningModule, stage: str) -> None:
        """Refuse processes that would begin at different steps."""
        path = latest(self.folder)
        seen = None if path is None else (path.name, path.stat().st_size if path.is_file() else 0)
        if not trainer.strategy.reduce_boolean_decision(trainer.strategy.broadcast(seen) == seen, all=True):
            raise UserError(
                f"processes see different files in {self.folder / LAST.parent}; put the run where every "
                f"machine sees the same one, and name it with --runs"
            )

    def on_train_start(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        self.saved_at, self.saved_step = time.monotonic(), trainer.global_step
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
        judged = training.measured.get(training.best, -math.inf)
        if judged <= self.least:
            self.least = judged
            learned = training.learned()
            if learned is not None and trainer.is_global_zero:
                save(training.model_now(learned, training.measured), self.folder)
        self.checkpoint(trainer)
        if trainer.global_step < trainer.max_steps and self.stopping(trainer):
            raise Stopped(self.asked_to_stop or signal.SIGTERM, trainer.global_step)

    def stopping(self, trainer: pl.Trainer) -> bool:
        """Whether any process was asked to stop."""
        return trainer.strategy.reduce_boolean_decision(self.asked_to_stop is not None, all=False)

    def checkpoint(self, trainer: pl.Trainer) -> None:
        """Write the file to resume from."""
        trainer.save_checkpoint(self.folder / LAST)
        self.saved_at, self.saved_step = time.monotonic(), trainer.global_step

    def on_exception(
        self, trainer: pl.Trainer, training: pl.LightningModule, exception: BaseException
    ) -> None:
        assert isinstance(training, Training)
        training_began = bool(self.handlers)
        if training_began and isinstance(exception, Exception) and self.worth_saving(trainer, training):
            with suppress(OSError):  # the first error is the one to be told
                self.rescue(trainer)  # and a launcher that stops all other processes is heard, but waits
        self.listen_no_more()

    def worth_saving(self, trainer: pl.Trainer, training: Training) -> bool:
        """Whether the steps since the last checkpoint can be saved as they are, after an error.

        Not in the middle of a change of weights; not after steps without finite numbers, since the last
        checkpoint may lie before those; and not before a validation that resuming could not catch up on.
        """
        batches = trainer.global_step * trainer.accumulate_grad_batches
        between = batches % (trainer.val_check_batch or math.inf) != 0 and not trainer.should_stop
        holds = trainer.is_global_zero or training.sharded  # each process a part
        new = trainer.global_step > self.saved_step
        return holds and new and between and not training.moving and not training.skipped_in_row

    def rescue(self, trainer: pl.Trainer) -> None:
        """Save the last whole step: what the step at hand has begun counts for nothing.

        This process does so by itself, and waits for no other one, which may be gone.
        """
        loop = trainer.fit_loop.epoch_loop
        steps = trainer.global_step
        optimizer = loop.automatic_optimization.optim_progress.optimizer
        batches = (loop.batch_progress, steps * trainer.accumulate_grad_batches)
        for progress, most in (batches, (optimizer.step, steps), (optimizer.zero_grad, steps)):
            for counts in (progress.current, progress.total):
                for name, count in vars(counts).items():
                    setattr(counts, name, min(count, most))
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        strategy = trainer.strategy
        write = strategy.leave_part if isinstance(strategy, Sharded) else strategy.save_checkpoint
        write(checkpoint, self.folder / LAST)

    def teardown(self, trainer: pl.Trainer, training: pl.LightningModule, stage: str) -> None:
        self.listen_no_more()

    def listen_no_more(self) -> None:
        """Give signals back to whoever heard them before."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers.clear()
