"""Compilation of a training's networks, chosen by timing its first steps (`model.compile: auto`)."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from genstack.compilation import CompilationChoice, Work
from genstack.training.training import Training
from genstack.transformer.compiled_step import Backend

WARMUP, COMPILING, TIMED = 2, 3, 3  # steps; the first ones are slower than others, compiled or not
DEVICES = ("cpu", "cuda")  # types of devices that torch.compile makes fast kernels for


class CompilationCallback(pl.Callback):
    """Compile the networks of a training where that saves time.

    A run keeps its choice, because compiled networks round differently.

    Args:
        obstacle: returns the reason why this machine cannot compile; "" if it can.
    """

    choice: CompilationChoice | None = None

    def __init__(self, obstacle: Callable[[], str] = str):
        self.obstacle = obstacle
        self.saved: bool | None = None  # choice of the checkpoint; None for none yet

    def state_dict(self) -> dict[str, bool | None]:
        made = self.choice is not None and self.choice.decided
        return {"compiled": self.choice.active if self.choice is not None and made else self.saved}

    def load_state_dict(self, state_dict: dict[str, bool | None]) -> None:
        self.saved = state_dict["compiled"]

    def on_train_start(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        assert isinstance(training, Training)
        if training.compile_mode != "auto" or training.sharded or training.device.type not in DEVICES:
            return
        networks = [] if training.compile_obstacle else training.networks_to_compile()
        if not networks or self.saved is False:
            return
        work = Work("step", "steps", "--model.compile", training.compile_worthwhile, WARMUP, COMPILING, TIMED)
        self.choice = CompilationChoice(
            work,
            "auto",
            trainer.max_steps - trainer.global_step,
            lambda: compiled(networks),
            lambda: self.joint_obstacle(trainer),
            quiet=not trainer.is_global_zero,
        )
        if self.saved:
            self.choice.print("compiled, as before; --model.compile false leaves it out")
            self.choice.start()
            self.choice.decided = True

    def joint_obstacle(self, trainer: pl.Trainer) -> str:
        """Return what keeps this machine or another one from compiling."""
        reason = self.obstacle()
        if trainer.strategy.reduce_boolean_decision(not reason, all=True):
            return ""
        return reason or "another machine cannot compile"

    @property
    def timing(self) -> bool:
        """True while steps are timed; reading the clock of a GPU waits for it."""
        return self.choice is not None and not self.choice.decided

    def on_train_batch_start(
        self, trainer: pl.Trainer, training: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.timing and batch_idx % trainer.accumulate_grad_batches == 0:
            self.begun = seconds(training.device)

    def on_train_batch_end(
        self, trainer: pl.Trainer, training: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.timing and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            assert self.choice is not None
            taken = seconds(training.device) - self.begun
            self.choice.record(trainer.strategy.broadcast(taken))

    def on_exception(
        self, trainer: pl.Trainer, training: pl.LightningModule, exception: BaseException
    ) -> None:
        self.teardown(trainer, training, "fit")

    def teardown(self, trainer: pl.Trainer, training: pl.LightningModule, stage: str) -> None:
        if self.choice is not None:
            self.choice.stop()


def seconds(device: torch.device) -> float:
    """Read the clock of the main thread on a CPU, which other programs do not advance, or the wall clock."""
    if device.type == "cpu":
        return time.thread_time()
    torch.cuda.synchronize()
    return time.monotonic()


@contextmanager
def compiled(networks: Sequence[nn.Module], backend: Backend = "inductor") -> Iterator[None]:
    """Compile networks within this context. Code that torch.compile cannot compile runs uncompiled.

    Args:
        networks: networks whose calls are compiled; names of their weights do not change.
        backend: backend of torch.compile.
    """
    from torch._dynamo import config  # takes a second to import

    with config.patch(suppress_errors=True):
        try:
            for network in networks:
                network.compile(backend=backend)
            yield
        finally:
            for network in networks:
                network._compiled_call_impl = None
