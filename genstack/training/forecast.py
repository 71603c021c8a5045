"""What a training will take, found by doing a little of it: memory from small batches, time from three steps.

Memory. Two steps are done with a batch of two images, and two with one of four, while every storage that
torch allocates is counted as long as it lives. What a step holds grows with its batch in a straight line, so
that two points give the peak of any batch. On the CPU a process is larger than its tensors (libraries, the
source of the images): the estimate is the largest size that the process had by then, as the system tells it,
and the growth of the tensors from there on. On a GPU it is what torch's allocator has had in use. Validation
needs less than a step. `benchmarks/memory.py` holds it against real runs.

An adversary pushes from the first step on here, since that is when training takes most.
"""

import os
import resource
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from genstack.training.compressor import CompressorTraining
from genstack.training.loggers import Logging
from genstack.training.run import Schedule
from genstack.training.training import Training

SMALL = 2  # images of the smaller batch that memory is measured with
STEPS = 3  # that are timed


@dataclass(frozen=True)
class Memory:
    """What a training process will hold at its peak.

    Args:
        needed: bytes.
        there: bytes that the device has for it.
        device: what it is, for people.
    """

    needed: int
    there: int
    device: str

    @property
    def fits(self) -> bool:
        return self.needed <= self.there


class Alive(TorchDispatchMode):
    """The bytes of all storages that torch operations have made and that are still in use, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.peak = 0, 0
        self.known: set[int] = set()

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage until it is let go."""
        storage = tensor.untyped_storage()
        place = storage._cdata
        if place in self.known:
            return
        size = storage.nbytes()
        self.known.add(place)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self.gone, place, size)

    def gone(self, place: int, size: int) -> None:
        """A storage was let go."""
        self.known.discard(place)
        self.bytes -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
                self.add(leaf)
        return result


class Enough(Exception):
    """All steps of a probe are done."""


class Probe(pl.Callback):
    """Stops a training after a few steps, and says how long each took.

    Args:
        steps: how many.
    """

    def __init__(self, steps: int):
        self.steps = steps
        self.times: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        self.last = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, training: pl.LightningModule, *_: Any) -> None:
        if training.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.monotonic()
        self.times.append(now - self.last)
        self.last = now
        if len(self.times) == self.steps:
            raise Enough


class Forecast:
    """What a training of this schedule takes in each process. Its weights are no longer new afterwards.

    Args:
        training: as it would begin.
        schedule: of the whole run.
    """

    def __init__(self, training: Training, schedule: Schedule):
        self.training, self.schedule = training, schedule
        self.batch_size = training.data.batch_size
        parts = self.processes * schedule.accumulate_grad_batches
        self.micro_batch = max(1, self.batch_size // parts)
        if isinstance(training, CompressorTraining) and training.adversary is not None:
            training.adversary.start, training.adversary.ramp = 0, 0

    @property
    def processes(self) -> int:
        """How many train together."""
        devices = self.schedule.devices
        if devices == "auto":
            devices = max(1, torch.cuda.device_count()) if self.schedule.accelerator != "cpu" else 1
        return int(devices) * self.schedule.num_nodes

    def memory(self) -> Memory:
        """The peak of one process."""
        sizes = [min(SMALL, self.micro_batch), min(2 * SMALL, self.micro_batch)]
        peaks = [self.tensors(size) for size in sizes]
        slope = (peaks[1] - peaks[0]) / (sizes[1] - sizes[0]) if sizes[1] > sizes[0] else 0.0
        growth = max(0, round(slope * (self.micro_batch - sizes[1])))
        if self.training.device.type == "cuda":
            name = torch.cuda.get_device_name(self.training.device)
            return Memory(peaks[1] + growth, torch.cuda.mem_get_info(self.training.device)[1], name)
        used, free = process_memory()
        return Memory(used + growth, free + used, "this machine")

    def tensors(self, batch_size: int) -> int:
        """The most bytes that tensors take in two steps of so many images."""
        if torch.cuda.is_available() and self.schedule.accelerator != "cpu":
            torch.cuda.reset_peak_memory_stats()
            self.steps(2, batch_size)
            return torch.cuda.max_memory_allocated()
        with Alive() as alive:
            for tensor in chain(*(weights(part) for part in self.parts())):
                alive.add(tensor)
            self.steps(2, batch_size)
        return alive.peak

    def parts(self) -> Iterator[nn.Module]:
        """Every module in memory, those outside of the training's tree too."""
        yield self.training
        yield from self.training.outside()

    def seconds(self) -> float:
        """An optimizer step's, after a first one that does not count."""
        times = self.steps(1 + STEPS, self.micro_batch)
        return sum(times[1:]) / STEPS * self.schedule.accumulate_grad_batches

    def steps(self, count: int, batch_size: int) -> list[float]:
        """Do some steps in this process alone, and nothing else; the seconds of each."""
        probe = Probe(count)
        schedule = replace(
            self.schedule, accumulate_grad_batches=1, devices=1, num_nodes=1, strategy="auto", max_steps=10**6
        )
        trainer = schedule.trainer(Path(), [probe], Logging(images=0))
        with self.batches_of(batch_size):
            try:
                trainer.fit(self.training)
            except Enough:
                return probe.times
        raise AssertionError("a probe ends before its training")

    @contextmanager
    def batches_of(self, size: int) -> Iterator[None]:
        """The data in batches of another size."""
        self.training.data.batch_size = size
        try:
            yield
        finally:
            self.training.data.batch_size = self.batch_size


def weights(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers."""
    return chain(module.parameters(), module.buffers())


def process_memory() -> tuple[int, int]:
    """Bytes: the most that this process has had, and what the machine has left."""
    status, machine = Path("/proc/self/status"), Path("/proc/meminfo")
    if status.exists():  # Linux; getrusage would tell that of the process that started this one, if larger
        return kilobytes(status, "VmHWM") * 1024, kilobytes(machine, "MemAvailable") * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return most, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") - most


def kilobytes(file: Path, name: str) -> int:
    """A number of the system's own tables."""
    lines = file.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
