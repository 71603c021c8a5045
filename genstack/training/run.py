"""A run folder, and the schedule of its training."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy, Strategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from genstack.atomic import atomic_path, exclusive
from genstack.errors import UserError
from genstack.losses.schedule import percentage, steps
from genstack.training.callbacks.checkpoint import AtomicCheckpointIO, CheckpointCallback, latest
from genstack.training.callbacks.compilation import CompilationCallback
from genstack.training.callbacks.images import ImageLogger
from genstack.training.callbacks.metrics import MetricsLogger
from genstack.training.callbacks.progress import ProgressLine
from genstack.training.files import CONFIG, METRICS
from genstack.training.loggers import Logging
from genstack.training.sharded_checkpoint import REST, ShardedStrategy
from genstack.training.training import Training
from genstack.yaml_files import Loader, read_yaml

FORMAT_VERSION = 2  # of config.yaml
#: Settings that cannot change once a run has begun.
FIXED = ("init", "compressor", "codebook_init", "accumulate_grad_batches")
NO_LOGGER = "; add --log.tensorboard true, or --log.wandb offline"
MIN_INTERVAL = 20  # steps between two validations, if given as a share of the run


@dataclass(frozen=True)
class Schedule:
    """Length of the training, intervals of validation and checkpoints, precision and devices.

    Args:
        max_steps: optimizer steps of the whole run.
        validate_every: optimizer steps between two validations, or share of the run like "10%"; each writes
            the model, an image sheet and a checkpoint. A share gives at least 20 steps; in a run shorter than
            200 steps, at least a tenth of the run. The last step is always validated.
        checkpoint_minutes: minutes between two checkpoints, besides those after validation; 0 for every step.
        log_every_n_steps: optimizer steps between two lines of metrics.
        accumulate_grad_batches: number of parts in which a batch is computed, to save memory.
        gradient_clip_val: largest norm of the gradients, for compressor and discriminator separately; null
            for no limit.
        precision: 32-true, bf16-mixed (half the memory of activations, faster on most devices) or 16-mixed.
        accelerator: auto, cpu, gpu or mps.
        devices: number of devices per node, or auto.
        num_nodes: number of machines.
        strategy: auto or ddp: each device holds the whole model (DistributedDataParallel if there are
            several). fsdp: each holds a shard of weights, EMA weights and moments, for models that do not fit
            into one device (FSDP2).
        threads: number of CPU threads; null measures a few steps and keeps the fastest number.
        deterministic: use deterministic algorithms only.
        callbacks: Lightning callbacks, called in the given order; classes of Lightning or of plugins.
    """

    max_steps: int = 10_000
    validate_every: int | str = "10%"
    checkpoint_minutes: float = 10.0
    log_every_n_steps: int = 20
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = 1.0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: str = "auto"
    devices: int | Literal["auto"] = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    threads: int | None = None
    deterministic: bool = False
    callbacks: tuple[Callback, ...] = ()

    def __post_init__(self) -> None:
        counts = "max_steps log_every_n_steps accumulate_grad_batches num_nodes devices threads"
        for name in counts.split():
            if getattr(self, name) not in ("auto", None) and getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)} is out of range; it must be at least 1")
        if self.checkpoint_minutes < 0:
            raise UserError(f"checkpoint_minutes must be at least 0, got {self.checkpoint_minutes}")
        if self.gradient_clip_val is not None and self.gradient_clip_val <= 0:
            raise UserError(
                f"gradient_clip_val {self.gradient_clip_val} is out of range; it must be above 0, or null "
                f"for no limit"
            )
        if self.strategy not in ("auto", "ddp", "fsdp"):
            raise UserError(f"unknown strategy {self.strategy}; use auto, ddp or fsdp")
        if self.strategy == "fsdp" and self.precision not in ("32-true", "bf16-mixed"):
            raise UserError(f"strategy fsdp does not support precision {self.precision}; use bf16-mixed")
        if self.validate_every in (0, "0", "0%"):
            raise UserError("validate_every 0 would never write a model; give steps, or a share like 10%")

    @property
    def processes(self) -> int:
        """Number of training processes, one per device."""
        if self.devices != "auto":
            return self.num_nodes * self.devices
        cuda = self.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        return self.num_nodes * (torch.cuda.device_count() if cuda else 1)

    @property
    def interval(self) -> int:
        """Optimizer steps between two validations."""
        share, total = percentage(self.validate_every) is not None, self.max_steps
        least = min(MIN_INTERVAL, total // 10) if share else 1
        return min(max(1, least, steps(self.validate_every, total)), total)

    def lightning_strategy(self) -> Strategy | str:
        """Return the strategy for Lightning's trainer.

        Buffers are equal in all processes by contract. Broadcasting them with every batch would hang in
        validation, where processes have different numbers of batches. Steps may leave parameters unused.
        """
        if self.strategy == "fsdp":
            return ShardedStrategy(self.processes)
        if self.processes == 1 and self.strategy == "auto":
            return "auto"
        return DDPStrategy(broadcast_buffers=False, find_unused_parameters=True)

    def trainer(self, folder: Path, callbacks: list[pl.Callback], logging: Logging) -> pl.Trainer:
        """Build Lightning's trainer for a folder: one endless epoch, validated by steps."""
        interval = self.interval
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
            strategy=self.lightning_strategy(),
            deterministic=self.deterministic,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
            plugins=[] if self.strategy == "fsdp" else [AtomicCheckpointIO()],
            logger=logging.loggers(folder),
        )


@dataclass
class Run:
    """Folder of a training run.

    Args:
        folder: path of the folder.
    """

    folder: Path
    #: The configuration of a new run, for processes that do not write it to the folder.
    new_config: dict[str, Any] | None = field(default=None, init=False)

    @property
    def checkpoint(self) -> Path | None:
        """Checkpoint to resume from; None before the first one."""
        return latest(self.folder)

    def step(self) -> int:
        """Return the step of the latest checkpoint; 0 without one."""
        saved = self.checkpoint_content()
        return 0 if saved is None else int(saved["global_step"])

    @property
    def stopped(self) -> bool:
        """True if a callback stopped the run before its last step, and no setting has changed since."""
        saved = self.checkpoint_content()
        return saved is not None and saved["stopped"] and not self.changes()

    def checkpoint_content(self) -> dict[str, Any] | None:
        """Read the latest checkpoint without its tensors; None before the first one."""
        path = self.checkpoint
        if path is None:
            return None
        try:
            file = path / REST if path.is_dir() else path
            status = file.stat()
            return read_checkpoint(file, status.st_ino, status.st_mtime_ns, status.st_size)
        except (RuntimeError, UnpicklingError, EOFError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not a valid checkpoint; delete it to train from the start") from error

    def changes(self) -> dict[str, str]:
        """Return the settings that differ from the latest checkpoint's, as `old -> new` by name."""
        saved = self.checkpoint_content()
        if saved is None or saved["config"] is None:
            return {}
        changed = compare(saved["config"], self.config())
        for name, values in changed.items():
            last = name.rpartition(".")[2]
            other_optimizer = last == "muon" and "None" in values.split(" -> ")
            if name in FIXED or last in FIXED or other_optimizer:
                raise UserError(
                    f"{name} cannot change after a run has begun ({values}); undo the change in "
                    f"{self.folder / CONFIG}, or start a new run with another --name"
                )
        return changed

    def begin(self, config: dict[str, Any]) -> bool:
        """Start a run with a configuration, or find the same run; return True for a new one.

        Raises:
            UserError: the folder holds a run with another configuration.
        """
        if (self.folder / CONFIG).exists():
            here, new = ({**each, "plugins": None} for each in (self.config(), config))  # code may change
            differences = "; ".join(format_changes(compare(here, new))[:3])
            if differences:
                raise UserError(
                    f"{self.folder} holds a run with another configuration ({differences}); choose another "
                    f"--name, or continue it with: genstack train resume {self.folder}"
                )
            return False
        self.new_config = yaml.load(yaml.safe_dump(config), Loader)  # as it will be read
        self.write_config(config)
        return True

    @rank_zero_only
    def write_config(self, config: dict[str, Any]) -> None:
        """Write the configuration to the folder."""
        with atomic_path(self.folder / CONFIG) as partial:
            versioned = {"format_version": FORMAT_VERSION, **config}
            text = yaml.safe_dump(versioned, sort_keys=False, allow_unicode=True)
            partial.write_text(text, encoding="utf-8")

    @rank_zero_only
    def withdraw(self) -> None:
        """Remove the files of a run that failed before its first checkpoint."""
        if self.checkpoint is None:
            for name in (CONFIG, METRICS, ".lock"):
                (self.folder / name).unlink(missing_ok=True)
            with suppress(OSError):  # the folder has other files
                self.folder.rmdir()

    def config(self) -> dict[str, Any]:
        """Read the configuration of the run."""
        path = self.folder / CONFIG
        if self.new_config is not None and not path.is_file():
            return self.new_config
        if not path.is_file():
            raise UserError(f"{self.folder} is not a run: {CONFIG} not found")
        config = read_yaml(path)
        version = config.pop("format_version", None) if isinstance(config, dict) else None
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path} has format version {version}, this genstack reads {FORMAT_VERSION}; "
                f"continue the run with the genstack that it began with"
            )
        return config

    def train(
        self,
        training: Training,
        schedule: Schedule,
        logging: Logging,
        compile_obstacle: Callable[[], str] = str,
    ) -> None:
        """Train from the latest checkpoint to the last step.

        Args:
            training: the training, with new weights.
            schedule: length, intervals and devices.
            logging: loggers and image sheets.
            compile_obstacle: tells what keeps this machine from compiling; "" for nothing.

        Raises:
            Stopped: after Ctrl-C or SIGTERM; everything is saved.
            UserError: too many steps were not finite, or an option does not suit the devices.
        """
        training.changed = format_changes(self.changes())
        checkpoints = CheckpointCallback(self.folder, schedule.checkpoint_minutes, self.config())
        images = ImageLogger(self.folder, logging.images)
        compilation = CompilationCallback(compile_obstacle)
        callbacks = [compilation, ProgressLine(), MetricsLogger(self.folder), images]
        callbacks += [*schedule.callbacks, checkpoints]
        with self.lock():
            try:
                trainer = schedule.trainer(self.folder, callbacks, logging)
            except (MisconfigurationException, ValueError, ImportError) as error:
                raise UserError(f"trainer: {error}") from error
            try:
                trainer.fit(training, ckpt_path=self.checkpoint, weights_only=True)
            except (MisconfigurationException, ModuleNotFoundError) as error:  # of a callback
                advice = "" if trainer.loggers or "logger" not in str(error) else NO_LOGGER
                raise UserError(f"trainer: {error}{advice}") from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder against a second training, and remove unfinished files of a killed one."""
        if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            yield
            return
        message = f"{self.folder} is being trained by another process; wait, or stop it"
        with exclusive(self.folder / ".lock", message):
            for path in list(self.folder.rglob(".*.writing")):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            yield


@lru_cache(maxsize=1)
def read_checkpoint(file: Path, *version: int) -> dict[str, Any]:
    """Read a checkpoint without its tensors; cached, because a training reads it several times as it starts.

    Args:
        file: its path.
        version: numbers that change with the file, as a part of the cache's key.
    """
    content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    kept = {name: content[name] for name in ("global_step", "config", "threads")}
    return kept | {"stopped": content.get("stopped", False)}


def format_changes(changes: dict[str, str]) -> list[str]:
    """Format changes as one line per setting."""
    return [f"{name}: {values}" for name, values in changes.items()]


def compare(old: Any, new: Any, place: str = "") -> dict[str, str]:
    """Return the settings that differ between two configurations, as `old -> new` by name."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, str] = {}
        for key in [*old, *(key for key in new if key not in old)]:
            inner = place if key == "init_args" else f"{place}.{key}".strip(".")
            found |= compare(old.get(key), new.get(key), inner)
        return found
    return {} if old == new else {place: f"{old} -> {new}"}
