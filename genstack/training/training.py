"""Training shared by both stages: one optimizer, EMA weights, skipped non-finite steps, exact resume."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Generic, TypeVar, cast

import PIL.Image
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from genstack.compilation import Mode
from genstack.data.data import Data
from genstack.data.seeding import mix
from genstack.description import build, describe
from genstack.errors import UserError
from genstack.model import Model
from genstack.training.ema import ema_model
from genstack.training.optimization import Optimization, clip
from genstack.training.sharding import average_replicated, gather_model, is_sharded, shard
from genstack.training.step_metrics import MeanMetrics, StepMetrics

Learner = TypeVar("Learner", bound=nn.Module)

MAX_SKIPPED = 10  # optimizer steps in a row; then the run stops


class Training(pl.LightningModule, ABC, Generic[Learner]):
    """Training of one model with one backward pass, one optimizer and one step counter.

    Each step seeds its randomness from (seed, consumed images, rank). A resumed run therefore continues bit
    for bit, without saved generator states.
    """

    model: Learner
    consumed: Tensor
    skipped: Tensor
    #: Validation metric to minimize: its best weights go to the model file. "" for the latest weights.
    best_metric: str
    #: Metrics on the progress line.
    progress_metrics: tuple[str, ...]
    #: Seconds of remaining steps from which `compile: auto` compiles.
    compile_worthwhile: float

    def __init__(
        self, model: Learner, data: Data, optimization: Optimization, ema: float, compile: Mode, seed: int
    ):
        super().__init__()
        self.model, self.data, self.optimization, self.seed = model, data, optimization, seed
        self.compile_mode = compile
        self.ema = ema_model(model, ema)
        self.register_buffer("consumed", torch.tensor(0))  # training images so far, over all processes
        self.register_buffer("skipped", torch.tensor(0))  # skipped optimizer steps so far
        self.skipped_in_row = 0
        self.finite = True
        self.pending = 0  # images of the current step, added to `consumed` once it is done
        self.step_metrics = StepMetrics()
        self.validation_means = MeanMetrics()
        self.validation_metrics: dict[str, float] = {}  # of the latest validation
        self.latest: Any = None  # validation batch
        self.changed: list[str] = []  # settings that differ from the checkpoint's

    @property
    @abstractmethod
    def representation(self) -> str:
        """Description of the codes or latents of an image."""

    @abstractmethod
    def to_model(self, weights: Learner, metrics: dict[str, float]) -> Model:
        """Assemble the model to save: these weights, preprocessing and metadata."""

    @abstractmethod
    def networks_to_compile(self) -> list[nn.Module]:
        """List the networks that torch.compile makes faster."""

    @property
    @abstractmethod
    def compile_obstacle(self) -> str:
        """Reason why these networks cannot be compiled, with a way out; "" for none."""

    def compile_if_asked(self) -> None:
        """Compile the networks with `compile: true`; `auto` compiles after the first steps."""
        if self.compile_mode is True:
            if self.compile_obstacle:
                raise UserError(self.compile_obstacle)
            for network in self.networks_to_compile():
                network.compile()

    def passes(self, count: int) -> float:
        """How often so many steps read each training image; 0 for endless training (-1)."""
        return max(0, count) * self.data.batch_size / len(self.data.split.training)

    def optimization_summary(self, max_steps: int) -> str:
        """Describe the length of a training and its optimization."""
        passes = f" ({self.passes(max_steps):.3g} epochs)" if max_steps > 0 else ""
        return (
            f"{max_steps} steps of {self.data.batch_size} images{passes}, "
            f"learning rate {self.optimization.learning_rate:g}"
        )

    def configure_model(self) -> None:
        """Shard the weights under strategy fsdp."""
        if self.device_mesh is None or self.sharded:
            return
        if any(module._compiled_call_impl is not None for module in self.model.modules()):
            raise UserError("compiled weights cannot be sharded; use `compile: auto`, or strategy ddp")
        self.description = describe(self.model)
        for model in (self.model, self.ema.module):
            shard(model, self.device_mesh["data_parallel"])

    @property
    def sharded(self) -> bool:
        """True if each process holds a shard of the weights; all processes then call the model together."""
        return is_sharded(self.model)

    @property
    def ema_model(self) -> Learner:
        """Model with EMA weights, for validation, image sheets and the model file."""
        return cast(Learner, self.ema.module.eval())

    def full_model(self) -> Learner | None:
        """Return the EMA model; sharded weights are gathered on rank 0, and other ranks get None."""
        return gather_model(self.ema_model, self.new_model) if self.sharded else self.ema_model

    def new_model(self) -> Learner:
        """Build a model of the same architecture, with any weights."""
        return cast(Learner, build(self.description))

    def metadata(self, metrics: dict[str, float]) -> dict[str, Any]:
        """Return the provenance of the model."""
        return {
            "data": self.data.source,
            "step": self.trainer.global_step,
            "images": int(self.consumed),
            "seed": self.seed,
            "measured": metrics,
            "torch": str(torch.__version__),
        }

    @abstractmethod
    def networks(self) -> Sequence[nn.Module]:
        """Return the trained networks; the gradients of each are clipped by their own norm."""

    @abstractmethod
    def frozen_networks(self) -> Sequence[nn.Module]:
        """Return the frozen networks on the device; no optimizer or checkpoint has them."""

    @abstractmethod
    def objective(self, batch: Any) -> Tensor:
        """Compute the training loss of a batch, and log its terms."""

    @abstractmethod
    def image_sheet(self, count: int) -> PIL.Image.Image:
        """Draw a sheet of about `count` images by the EMA model."""

    def charts(self) -> dict[str, PIL.Image.Image]:
        """Draw further pictures, by name."""
        return {}

    def after_step(self, skipped: bool) -> None:
        """Update buffers once after each optimizer step."""

    def log_step(self, numbers: Mapping[str, Tensor | float]) -> None:
        """Log metrics of the current step as `train/...`; all processes log the same names."""
        self.step_metrics.update({f"train/{name}": value for name, value in numbers.items()})

    def log_validation(self, numbers: Mapping[str, Tensor | float], images: int) -> None:
        """Log means over validation images as `val/...`; all processes log the same names."""
        self.validation_means.update({f"val/{name}": value for name, value in numbers.items()}, images)

    @abstractmethod
    def predict(self, batch: Any) -> Any:
        """Run the EMA model on a validation batch; with sharded weights, all processes call it together."""

    @abstractmethod
    def log_prediction(self, batch: Any, prediction: Any) -> None:
        """Log metrics of a validation batch."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log_prediction(batch, self.predict(batch))
        self.latest = batch

    @abstractmethod
    def joint_metrics(self) -> dict[str, float]:
        """Compute metrics over all validation images, equal in all processes."""

    def on_validation_epoch_end(self) -> None:
        if self.sharded:
            self.predict_missing_batches()
        joint = {f"val/{name}": number for name, number in self.joint_metrics().items()}
        self.validation_metrics = self.validation_means.compute(self.device) | joint
        self.check_monitors()
        # For callbacks of Lightning, such as EarlyStopping; the numbers are equal in all processes.
        self.log_dict(self.validation_metrics, logger=False, sync_dist=self.trainer.world_size > 1)

    def check_monitors(self) -> None:
        """Check that the metrics that callbacks monitor exist."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            monitor = getattr(callback, "monitor", None)
            if monitor is not None and monitor not in self.validation_metrics:
                known = ", ".join(self.validation_metrics)
                raise UserError(
                    f"trainer.callbacks: unknown metric '{monitor}' of {type(callback).__name__}; "
                    f"choose from {known}"
                )

    def predict_missing_batches(self) -> None:
        """Repeat the last batch until all processes, which gather shards together, ran equally many."""
        loader = self.trainer.val_dataloaders
        assert isinstance(loader, DataLoader)
        images: int = len(loader.dataset)  # type: ignore[arg-type]
        most = ceil(ceil(images / self.trainer.world_size) / self.micro_batch)
        for _ in range(most - len(loader)):
            self.predict(self.latest)

    def configure_optimizers(self) -> Any:
        optimizer, schedule = self.optimization.optimizer(self.networks(), self.trainer.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Replace the optimizer and schedule settings of the checkpoint by the current ones."""
        optimizer, schedule = self.optimizers(use_pl_optimizer=False), self.lr_schedulers()
        assert isinstance(optimizer, torch.optim.Optimizer) and isinstance(schedule, LambdaLR)
        fresh, _ = self.optimization.optimizer(self.networks(), self.trainer.max_steps)
        for group, new in zip(optimizer.param_groups, fresh.param_groups, strict=True):
            group |= {name: value for name, value in new.items() if name != "params"}
        schedule.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
        for group, base, factor in zip(optimizer.param_groups, schedule.base_lrs, factors, strict=True):
            group["lr"] = base * factor

    def load_state_dict(self, state_dict: Mapping[str, Any], *arguments: Any, **options: Any) -> Any:
        try:
            return super().load_state_dict(state_dict, *arguments, **options)
        except RuntimeError as error:
            raise self.mismatch(str(error).partition("\n")[2] or str(error)) from error

    def mismatch(self, reason: str) -> UserError:
        """Return the error for a checkpoint with other weights; it names the changed settings."""
        changed = "; ".join(self.changed) or "the model that these settings describe"
        return UserError(
            f"the checkpoint does not match {changed} ({' '.join(reason.split())[:200]}); undo the change, "
            f"or start a new run with another --name"
        )

    def train_dataloader(self) -> DataLoader:
        return self.data.training_loader(
            int(self.consumed), self.micro_batch, self.trainer.global_rank, self.trainer.world_size
        )

    def val_dataloader(self) -> DataLoader:
        loader = self.data.validation_loader(
            self.micro_batch, self.trainer.global_rank, self.trainer.world_size
        )
        if len(loader.dataset) < self.trainer.world_size:  # type: ignore[arg-type]
            raise UserError(
                f"{len(loader.dataset)} validation images cannot be shared by "  # type: ignore[arg-type]
                f"{self.trainer.world_size} processes; raise data.validation to at least one image each"
            )
        return loader

    @property
    def micro_batch(self) -> int:
        """Images per forward pass: `data.batch_size` divided by processes and accumulated parts."""
        parts = self.trainer.world_size * self.trainer.accumulate_grad_batches
        if self.data.batch_size % parts:
            raise UserError(
                f"batch_size {self.data.batch_size} cannot be shared by {self.trainer.world_size} processes "
                f"and {self.trainer.accumulate_grad_batches} accumulated parts; use a multiple of {parts}"
            )
        return self.data.batch_size // parts

    def on_fit_start(self) -> None:
        self.frozen_networks()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.step_metrics.clear()
        torch.manual_seed(mix(self.seed, int(self.consumed) + self.pending, self.global_rank))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.pending += len(batch) * self.trainer.world_size
        loss = self.objective(batch)
        self.finite = self.finite and bool(torch.isfinite(loss.detach()))
        self.log_step({"loss": loss})
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if self.sharded:
            average_replicated(self.parameters())
        norm = clip(optimizer, gradient_clip_val)
        self.log_step({"gradient_norm": norm})
        finite = self.finite and norm < float("inf")
        self.finite = bool(self.trainer.strategy.reduce_boolean_decision(finite, all=True))
        if not self.finite:
            optimizer.zero_grad(set_to_none=True)  # a step without gradients changes nothing

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        skipped, self.finite = not self.finite, True
        self.after_step(skipped)
        self.consumed += self.pending
        self.pending = 0
        self.skipped += int(skipped)
        self.skipped_in_row = self.skipped_in_row + 1 if skipped else 0
        self.log_step({"skipped": self.skipped})
        if not skipped:
            self.ema.update_parameters(self.model)
        if self.skipped_in_row == MAX_SKIPPED:
            raise UserError(
                f"losses or gradients were not finite for {MAX_SKIPPED} steps in a row, up to step "
                f"{self.global_step + 1}; checkpoints are kept; lower learning_rate or raise warmup"
            )
