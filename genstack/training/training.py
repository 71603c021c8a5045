"""What both stages share: one optimizer, averaged weights, steps that survive a bad batch, exact resuming."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, ClassVar, Generic, TypeVar, cast

import PIL.Image
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from genstack.data.data import Data
from genstack.data.seeding import mix
from genstack.description import build, describe
from genstack.errors import UserError
from genstack.model import Model
from genstack.training.ema import ema_model
from genstack.training.optimization import Optimization, clip
from genstack.training.sharding import assembled, average_replicated, is_sharded, shard
from genstack.training.step_metrics import MeanMetrics, StepMetrics

Learner = TypeVar("Learner", bound=nn.Module)

PATIENCE = 10  # optimizer steps in a row that may be thrown away before the run gives up


class Training(pl.LightningModule, ABC, Generic[Learner]):
    """Trains one model. One backward pass, one optimizer, one count of steps.

    All that is random in a step follows from (seed, images consumed, process), so a resumed run continues bit
    by bit without saving the state of any generator.
    """

    model: Learner
    consumed: Tensor
    skipped: Tensor
    #: Name of the measured number whose least value the model file keeps; "" for the latest weights.
    best: ClassVar[str]
    #: Logged names that the progress line shows, in order.
    shown: ClassVar[tuple[str, ...]]

    def __init__(self, model: Learner, data: Data, optimization: Optimization, ema: float, seed: int):
        super().__init__()
        self.model, self.data, self.optimization, self.seed = model, data, optimization, seed
        self.average = ema_model(model, ema)
        self.register_buffer("consumed", torch.tensor(0))  # training images so far, of all processes
        self.register_buffer("skipped", torch.tensor(0))  # optimizer steps thrown away so far
        self.skipped_in_row = 0
        self.finite = True
        self.reading = 0  # images of the step at hand so far; they count once it is done
        self.noted = StepMetrics()
        self.held_out = MeanMetrics()
        self.measured: dict[str, float] = {}  # by the latest validation
        self.latest: Any = None  # held-out batch
        self.changed: list[str] = []  # settings that differ from those of the checkpoint

    @property
    @abstractmethod
    def becomes(self) -> str:
        """What an image becomes between the two halves of the compressor, in words."""

    @abstractmethod
    def model_now(self, learned: Learner, measured: dict[str, float]) -> Model:
        """What the run hands on: `learned` with all that its use needs, and what validation measured."""

    def configure_model(self) -> None:
        """Cut the weights among the processes, where the strategy is one that does."""
        if self.device_mesh is None or self.sharded:
            return
        if any(module._compiled_call_impl is not None for module in self.model.modules()):
            raise UserError("compiled weights cannot be cut; use `compile: false`, or strategy ddp")
        self.described = describe(self.model)
        for model in (self.model, self.average.module):
            shard(model, self.device_mesh["data_parallel"])

    @property
    def sharded(self) -> bool:
        """Whether each process holds a part of the weights: then all must use them at once."""
        return is_sharded(self.model)

    def learned(self) -> Learner | None:
        """The averaged weights, whole. Where they are cut, the first process gets them, and all must ask."""
        return assembled(self.used, self.blank) if self.sharded else self.used

    def blank(self) -> Learner:
        """A model like the one that learns, with any weights."""
        return cast(Learner, build(self.described))

    def made(self, measured: dict[str, float]) -> dict[str, Any]:
        """How the model was made, for its description."""
        return {
            "data": self.data.source,
            "step": self.trainer.global_step,
            "images": int(self.consumed),
            "seed": self.seed,
            "measured": measured,
            "torch": str(torch.__version__),
        }

    @property
    def used(self) -> Learner:
        """The averaged weights: what validation measures, pictures show and the run hands on."""
        return cast(Learner, self.average.module.eval())

    @abstractmethod
    def networks(self) -> Sequence[nn.Module]:
        """The networks that learn; each is clipped by its own norm."""

    @abstractmethod
    def outside(self) -> Sequence[nn.Module]:
        """The networks that it uses as they are, brought to its device: in no optimizer and no checkpoint."""

    @abstractmethod
    def objective(self, batch: Any) -> Tensor:
        """The training loss of a batch, a scalar; logs its terms."""

    @abstractmethod
    def picture(self, count: int) -> PIL.Image.Image:
        """A sheet of about `count` images that shows what has been learned."""

    def charts(self) -> dict[str, PIL.Image.Image]:
        """What else there is to look at, by name."""
        return {}

    def after_step(self, skipped: bool) -> None:
        """Called once after each optimizer step."""

    def note(self, numbers: Mapping[str, Tensor | float]) -> None:
        """Say numbers of the step at hand, on all processes alike; `train/` goes before each name."""
        self.noted.add({f"train/{name}": value for name, value in numbers.items()})

    def measure(self, numbers: Mapping[str, Tensor | float], images: int) -> None:
        """Say means over so many held-out images, on all processes alike; `val/` goes before each name."""
        self.held_out.add({f"val/{name}": value for name, value in numbers.items()}, images)

    @abstractmethod
    def look(self, batch: Any) -> Any:
        """What the averaged weights make of a held-out batch; where they are cut, all processes must ask."""

    @abstractmethod
    def judge(self, batch: Any, made: Any) -> None:
        """Measure what was made of a held-out batch."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.judge(batch, self.look(batch))
        self.latest = batch

    @abstractmethod
    def measured_together(self) -> dict[str, float]:
        """What can only be said of all held-out images together, on all processes alike."""

    def on_validation_epoch_end(self) -> None:
        if self.sharded:
            self.accompany()
        together = {f"val/{name}": number for name, number in self.measured_together().items()}
        self.measured = self.held_out.take(self.device) | together

    def accompany(self) -> None:
        """Look at the latest batch again, for nothing, while the first process looks at one more of its own.

        It waits for the weights that lie here, and no process knows what another one does.
        """
        loader = self.trainer.val_dataloaders
        assert isinstance(loader, DataLoader)
        images: int = len(loader.dataset)  # type: ignore[arg-type]
        most = ceil(ceil(images / self.trainer.world_size) / self.micro_batch)
        for _ in range(most - len(loader)):
            self.look(self.latest)

    def configure_optimizers(self) -> Any:
        optimizer, schedule = self.optimization.optimizer(self.networks(), self.trainer.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Apply the settings of optimizer and schedule; Lightning has restored those of the checkpoint."""
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
        """The error of a checkpoint with other weights, which names the settings that have changed."""
        changed = "; ".join(self.changed) or "the model that these settings describe"
        return UserError(
            f"the checkpoint does not fit {changed} ({' '.join(reason.split())[:200]}); undo the change, or "
            f"start a new run with another --name"
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
                f"{self.trainer.world_size} processes; raise data.validation, so that each has at least one"
            )
        return loader

    @property
    def micro_batch(self) -> int:
        """Images that one process reads at a time; processes and accumulation share `data.batch_size`."""
        parts = self.trainer.world_size * self.trainer.accumulate_grad_batches
        if self.data.batch_size % parts:
            raise UserError(
                f"batch_size {self.data.batch_size} cannot be shared by {self.trainer.world_size} processes "
                f"and {self.trainer.accumulate_grad_batches} accumulated parts; use a multiple of {parts}"
            )
        return self.data.batch_size // parts

    def on_fit_start(self) -> None:
        self.outside()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.noted.clear()
        torch.manual_seed(mix(self.seed, int(self.consumed) + self.reading, self.global_rank))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.reading += len(batch) * self.trainer.world_size
        loss = self.objective(batch)
        self.finite = self.finite and bool(torch.isfinite(loss.detach()))
        self.note({"loss": loss})
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
        self.note({"gradient_norm": norm})
        self.finite = self.agree(self.finite and norm < float("inf"))
        if not self.finite:
            optimizer.zero_grad(set_to_none=True)  # a step without gradients moves nothing

    def agree(self, finite: bool) -> bool:
        """Whether every process says so."""
        return bool(self.trainer.strategy.reduce_boolean_decision(finite, all=True))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        skipped, self.finite = not self.finite, True
        self.after_step(skipped)
        self.consumed += self.reading
        self.reading = 0
        self.skipped += int(skipped)
        self.skipped_in_row = self.skipped_in_row + 1 if skipped else 0
        self.note({"skipped": self.skipped})
        if not skipped:
            self.average.update_parameters(self.model)
        if self.skipped_in_row == PATIENCE:
            raise UserError(
                f"losses or gradients were not finite for {PATIENCE} steps in a row, up to step "
                f"{self.global_step + 1}; what was saved is kept: lower learning_rate or raise warmup"
            )
