"""Memory and time of a training, measured by a few of its steps (`genstack plan`).

Steps run with batches of doubling size, up to the real one, as long as the next is expected to fit. Where the
real batch was reached, its peak is reported; otherwise the last two peaks are extrapolated along a line. On a
GPU the peak is that of torch's allocator, on the CPU the largest resident size of this process. All runs in
one process with the whole model; for several, the difference is added. Validation needs less than a step.
`benchmarks/memory.py` compares this with real runs.

An adversary acts from the first step here, since its steps take most.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from genstack.errors import UserError
from genstack.training.compressor import CompressorTraining
from genstack.training.loggers import Logging
from genstack.training.run import Schedule
from genstack.training.sharding import sharding_saves
from genstack.training.training import Training

FIRST = 2  # images of the first, smallest batch
STEPS = 3  # that are timed


@dataclass(frozen=True)
class Memory:
    """Peak memory of one training process.

    Args:
        needed: bytes.
        available: bytes of the device.
        device: its name.
        measured: the real batch was run; otherwise the peak is extrapolated from smaller ones.
    """

    needed: int
    available: int
    device: str
    measured: bool

    @property
    def fits(self) -> bool:
        return self.needed <= self.available


class Enough(Exception):
    """Ends a training after the steps of a probe."""


class Probe(pl.Callback):
    """Stops a training after a few steps, and times each.

    Args:
        steps: number of steps.
    """

    def __init__(self, steps: int):
        self.steps = steps
        self.seconds: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        self.last = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, training: pl.LightningModule, *_: Any) -> None:
        if training.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.monotonic()
        self.seconds.append(now - self.last)
        self.last = now
        if len(self.seconds) == self.steps:
            raise Enough


class Estimate:
    """Memory and time of a training in each process. Measuring trains: the weights change.

    Args:
        training: as it would begin.
        schedule: of the whole run.
    """

    def __init__(self, training: Training, schedule: Schedule):
        self.training, self.schedule = training, schedule
        self.batch_size = training.data.batch_size
        parts = schedule.processes * schedule.accumulate_grad_batches
        self.micro_batch = max(1, self.batch_size // parts)
        self.cuda = torch.cuda.is_available() and schedule.accelerator != "cpu"
        if isinstance(training, CompressorTraining) and training.adversary is not None:
            training.adversary.start, training.adversary.ramp = 0, 0

    def memory(self) -> Memory:
        """The peak of one process, from steps that fit."""
        size = min(FIRST, self.micro_batch)
        peaks = {size: self.peak(size)}
        while size < self.micro_batch:
            following = min(2 * size, self.micro_batch)
            if len(peaks) > 1 and extrapolate(peaks, following) + self.extra > self.available:
                break
            size = following
            peaks[size] = self.peak(size)
        device = torch.cuda.get_device_name() if self.cuda else self.machine
        needed = extrapolate(peaks, self.micro_batch) + self.extra
        return Memory(needed, self.available, device, size == self.micro_batch)

    def peak(self, batch_size: int) -> int:
        """The most bytes in use so far, after two steps with batches of this size."""
        self.steps(2, batch_size)
        return torch.cuda.max_memory_allocated() if self.cuda else resident_peak()

    @property
    def available(self) -> int:
        """Bytes for one process."""
        if self.cuda:
            return torch.cuda.mem_get_info()[1]
        return machine_memory() // self.neighbours

    @property
    def extra(self) -> int:
        """Bytes that one of several processes takes beyond a single one; negative with sharded weights."""
        if self.schedule.processes == 1:
            return 0
        if self.schedule.strategy == "fsdp":
            return -sharding_saves(self.training.model, self.schedule.processes)
        learning = chain(*(network.parameters() for network in self.training.networks()))
        return sum(parameter.nbytes for parameter in learning)  # gradients are copied to be sent

    @property
    def neighbours(self) -> int:
        """Number of processes that share the memory of this machine."""
        return self.schedule.processes // self.schedule.num_nodes

    @property
    def machine(self) -> str:
        """The name of this machine's memory."""
        return "this machine" if self.neighbours == 1 else f"this machine for each of {self.neighbours}"

    def seconds(self) -> float:
        """Seconds of an optimizer step, after a first one that does not count."""
        times = self.steps(1 + STEPS, self.micro_batch)
        return sum(times[1:]) / STEPS * self.schedule.accumulate_grad_batches

    def steps(self, count: int, batch_size: int) -> list[float]:
        """Run some steps in this process alone and return the seconds of each."""
        probe = Probe(count)
        schedule = replace(
            self.schedule, accumulate_grad_batches=1, devices=1, num_nodes=1, strategy="auto", max_steps=10**6
        )
        trainer = schedule.trainer(Path(), [probe], Logging(images=0))
        with self.batches_of(batch_size):
            try:
                trainer.fit(self.training)
            except Enough:
                return probe.seconds
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"the whole model and {batch_size} images do not fit onto {self.training.device}; "
                    f"plan with --trainer.accelerator cpu, or make the model smaller"
                ) from error
        raise AssertionError("a probe ends before its training")

    @contextmanager
    def batches_of(self, size: int) -> Iterator[None]:
        """Let the data give batches of another size."""
        self.training.data.batch_size = size
        try:
            yield
        finally:
            self.training.data.batch_size = self.batch_size


def extrapolate(peaks: dict[int, int], size: int) -> int:
    """The peak of a batch of `size`, on the line through those of the two largest batches."""
    if size in peaks:
        return peaks[size]
    (less, low), (more, high) = sorted(peaks.items())[-2:]
    return high + max(0, high - low) * (size - more) // (more - less)


def resident_peak() -> int:
    """The largest resident size of this process so far, in bytes; 0 on systems that do not tell."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux; getrusage would return the peak of the parent, if larger
        return kilobytes(status, "VmHWM") * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def machine_memory() -> int:
    """Bytes that this process has or could get; 0 on systems that do not tell."""
    table = Path("/proc/meminfo")
    if table.exists():
        return (kilobytes(table, "MemAvailable") + kilobytes(Path("/proc/self/status"), "VmRSS")) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0


def kilobytes(file: Path, name: str) -> int:
    """A number of the system's tables."""
    lines = file.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
