"""Progress line with step, losses, speed and time left; plain lines without a terminal."""

import sys
import time

import pytorch_lightning as pl
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from genstack.training.training import Training


class ProgressLine(pl.Callback):
    """Show the `progress_metrics` of a training, and print them at each validation."""

    bar: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        assert isinstance(training, Training)
        self.begun, self.first = time.monotonic(), trainer.global_step
        if training.changed and trainer.is_global_zero:
            print(f"changed at step {self.first}: {'; '.join(training.changed)}", file=sys.stderr)
        if sys.stderr.isatty() and trainer.is_global_zero:
            text = TextColumn("{task.description}")
            self.bar = Progress(BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(), text)
            self.task = self.bar.add_task("", total=trainer.max_steps, completed=trainer.global_step)
            self.bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, training: pl.LightningModule, *_: object) -> None:
        if self.bar is not None:
            text = self.text(trainer, training)
            self.bar.update(self.task, completed=trainer.global_step, description=text)

    def on_validation_end(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            step = f"step {trainer.global_step:{len(str(trainer.max_steps))}}"
            line = f"{step}  {self.text(trainer, training)}"
            if self.bar is not None:
                self.bar.console.print(line)
            else:
                print(line, file=sys.stderr, flush=True)

    def text(self, trainer: pl.Trainer, training: pl.LightningModule) -> str:
        """Format current metrics and speed."""
        assert isinstance(training, Training)
        found = training.step_metrics.local_means() | training.validation_metrics
        numbers = {name: found.get(name) for name in training.progress_metrics}
        shown = [f"{name} {float(number):.4g}" for name, number in numbers.items() if number is not None]
        speed = (trainer.global_step - self.first) / max(1e-9, time.monotonic() - self.begun)
        return "  ".join([*shown, f"{speed:.3g} steps/s"])

    def on_train_end(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        self.close()

    def on_exception(
        self, trainer: pl.Trainer, training: pl.LightningModule, exception: BaseException
    ) -> None:
        self.close()

    def close(self) -> None:
        """Restore the terminal."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
