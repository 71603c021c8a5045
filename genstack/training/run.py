"""A run: one folder that explains itself, and the training that fills it."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from genstack.atomic import replacing
from genstack.errors import UserError
from genstack.losses.schedule import steps
from genstack.training.keeper import LAST, Keeper, WholeFiles
from genstack.training.loggers import Logging
from genstack.training.metrics import Metrics
from genstack.training.pictures import Pictures
from genstack.training.progress import ProgressLine
from genstack.training.training import Training

CONFIG = "config.yaml"


@dataclass(frozen=True)
class Schedule:
    """How long to train, on what, and how often to look.

    Args:
        max_steps: optimizer steps of the whole run.
        validate_every: optimizer steps, or share of the run like "10%", between two validations; each writes
            the model, a sheet of pictures and a checkpoint. The end of the run is always validated.
        checkpoint_minutes: minutes between two checkpoints, beside those after validation; 0 for every step.
        log_every_n_steps: optimizer steps between two lines of metrics.
        accumulate_grad_batches: equal parts that a batch is computed in, one after the other, to save memory.
        gradient_clip_val: largest norm of the gradients, of compressor and discriminator each by its
            own; null for no limit.
        precision: 32-true, bf16-mixed (half the memory, quicker on most devices), 16-mixed or 64-true.
        accelerator: auto, cpu, gpu or mps.
        devices: number of devices on each node, or auto.
        num_nodes: number of machines.
        strategy: how devices work together: auto, ddp, fsdp.
        deterministic: only algorithms that give the same numbers each time, where a device has the choice.
    """

    max_steps: int = 10_000
    validate_every: int | str = "10%"
    checkpoint_minutes: float = 10.0
    log_every_n_steps: int = 20
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = 1.0
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"] = "32-true"
    accelerator: str = "auto"
    devices: int | Literal["auto"] = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    deterministic: bool = False

    def __post_init__(self) -> None:
        for name in ("max_steps", "log_every_n_steps", "accumulate_grad_batches", "num_nodes"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)} is out of range; it must be at least 1")

    def trainer(self, folder: Path, callbacks: list[pl.Callback], logging: Logging) -> pl.Trainer:
        """Lightning's trainer for this folder; its epoch never ends, and validation goes by steps."""
        interval = min(max(1, steps(self.validate_every, self.max_steps)), self.max_steps)
        return pl.Trainer(
            default_root_dir=folder,
            max_steps=self.max_steps,
            max_epochs=-1,
            val_check_interval=interval * self.accumulate_grad_batches,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            log_every_n_steps=self.log_every_n_steps,
            accumulate_grad_batches=self.accumulate_grad_batches,
            gradient_clip_val=self.gradient_clip_val,
            precision=self.precision,
            accelerator=self.accelerator,
            devices=self.devices,
            num_nodes=self.num_nodes,
            strategy=self.strategy,
            deterministic=self.deterministic,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
            plugins=[WholeFiles()],
            logger=logging.loggers(folder),
        )


@dataclass
class Run:
    """A folder of a training run.

    Args:
        folder: where it lies.
    """

    folder: Path

    @property
    def checkpoint(self) -> Path | None:
        """The file to resume from, if there is one."""
        return self.folder / LAST if (self.folder / LAST).exists() else None

    def step(self) -> int:
        """Optimizer steps done, as far as they are saved."""
        if self.checkpoint is None:
            return 0
        return int(
            torch.load(self.checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"]
        )

    def begin(self, config: dict[str, Any]) -> bool:
        """Claim the folder for a resolved configuration, or find that it is already the same one's.

        Returns whether it was claimed just now.

        Raises:
            UserError: the folder belongs to a run with another configuration.
        """
        if (self.folder / CONFIG).exists():
            differences = compare(self.config(), config)
            if differences:
                raise UserError(
                    f"{self.folder} holds a run with another configuration ({'; '.join(differences[:3])}); "
                    f"choose another --name, or continue it with: python train.py resume {self.folder}"
                )
            return False
        self.claim(config)
        return True

    @rank_zero_only
    def claim(self, config: dict[str, Any]) -> None:
        """Write the configuration."""
        with replacing(self.folder / CONFIG) as partial:
            text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
            partial.write_text(text, encoding="utf-8")

    @rank_zero_only
    def withdraw(self) -> None:
        """Give up a folder that was claimed for nothing; a run that has saved anything stays."""
        if self.checkpoint is None:
            (self.folder / CONFIG).unlink()
            with suppress(OSError):  # there is something else in it
                self.folder.rmdir()

    def config(self) -> dict[str, Any]:
        """The resolved configuration of the run."""
        path = self.folder / CONFIG
        if not path.is_file():
            raise UserError(f"{self.folder} is no run folder: it has no {CONFIG}")
        return yaml.safe_load(path.read_text(encoding="utf-8"))

    def train(self, training: Training, schedule: Schedule, logging: Logging) -> None:
        """Train until the schedule's end, from wherever the run is.

        Raises:
            Stopped: Ctrl-C or SIGTERM; everything is saved.
            UserError: losses stayed not finite, or an option does not fit the devices.
        """
        keeper = Keeper(self.folder, schedule.checkpoint_minutes)
        pictures = Pictures(self.folder, logging.images)
        callbacks = [ProgressLine(), Metrics(self.folder), pictures, keeper]
        try:
            trainer = schedule.trainer(self.folder, callbacks, logging)
        except (MisconfigurationException, ValueError) as error:  # an option that does not fit this machine
            raise UserError(f"trainer: {error}") from error
        trainer.fit(training, ckpt_path=self.checkpoint, weights_only=True)


def compare(old: Any, new: Any, place: str = "") -> list[str]:
    """What differs between two configurations, one line each."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            line for key in keys for line in compare(old.get(key), new.get(key), f"{place}.{key}".strip("."))
        ]
    return [] if old == new else [f"{place}: {old} there, {new} here"]
