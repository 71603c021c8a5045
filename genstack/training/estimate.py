"""What a training will take, found by doing a little of it: memory from small batches, time from three steps.

Memory. Two steps are done with a batch of two images, and two with one of four, while every storage that
torch allocates is counted as long as it lives. What lives at a moment of a step grows with the batch in a
straight line, so that two points give any batch; the peak is that of the moment which then has most, since
small batches have theirs where gradients are, and large ones where activations are. On the CPU a process is
larger than its tensors (libraries, the source of the images): the estimate is the largest size that the
process had by then, as the system tells it, and the growth of the tensors from there on, with an allowance.
On a GPU it is what torch's allocator has had in use. Validation needs less than a step.
`benchmarks/memory.py` holds it against real runs.

Several processes. All is measured in one that holds the whole model. Where weights are cut, what lies in
other processes is taken off, and what is gathered of it meanwhile put on again (`sharding.spared`); where
they are whole, gradients are sent in pieces that take as much again.

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

from genstack.errors import UserError
from genstack.training.compressor import CompressorTraining
from genstack.training.loggers import Logging
from genstack.training.run import Schedule
from genstack.training.sharding import spared
from genstack.training.training import Training

SMALL = 2  # images of the smaller batch that memory is measured with
STEPS = 3  # that are timed
#: Times what tensors need more, a process grows on the CPU: what is let go is not always used again.
SPLINTERS = 1.15


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
        self.steps: list[list[int]] = []  # bytes after each operation, step by step
        self.in_step = False
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
        if self.in_step:
            self.steps[-1].append(self.bytes)
        return result

    def begin_step(self) -> None:
        """A step begins."""
        self.steps.append([])
        self.in_step = True

    def end_step(self) -> None:
        """It is over; what comes until the next one is of no step."""
        self.in_step = False


def peak_of(size: int, sizes: tuple[int, int], small: Alive, large: Alive) -> int:
    """The most bytes with a batch of `size`, of what was counted in steps of two other sizes.

    Where both did the same operations, each of them is a moment. Otherwise, as where a codebook begins at
    what it sees first, or a batch is gone through in pieces, only the peaks of the step are compared.
    """
    if sizes[0] == sizes[1]:
        return large.peak
    times, most = (size - sizes[1]) / (sizes[1] - sizes[0]), 0.0
    for less, more in zip(small.steps, large.steps, strict=True):
        same = len(less) == len(more)
        pairs = zip(less, more, strict=True) if same else [(max(less), max(more))]
        most = max(most, *(there + times * max(0, there - here) for here, there in pairs))
    return round(most)


class Enough(Exception):
    """All steps of a probe are done."""


class Probe(pl.Callback):
    """Stops a training after a few steps, and says how long each took.

    Args:
        steps: how many.
        alive: counts memory, and is told when a step is going on.
    """

    def __init__(self, steps: int, alive: Alive):
        self.steps, self.alive = steps, alive
        self.times: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        self.last = time.monotonic()

    def on_train_batch_start(self, *_: Any) -> None:
        self.alive.begin_step()

    def on_train_batch_end(self, trainer: pl.Trainer, training: pl.LightningModule, *_: Any) -> None:
        self.alive.end_step()
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
        begun = process_memory()[0]
        sizes = (min(SMALL, self.micro_batch), min(2 * SMALL, self.micro_batch))
        if torch.cuda.is_available() and self.schedule.accelerator != "cpu":
            peaks = [self.allocated(size) for size in sizes]
            slope = (peaks[1] - peaks[0]) / max(1, sizes[1] - sizes[0])
            needed = peaks[1] + max(0, round(slope * (self.micro_batch - sizes[1]))) + self.together()
            device = self.training.device
            return Memory(needed, torch.cuda.mem_get_info(device)[1], torch.cuda.get_device_name(device))
        small, large = (self.counted(size) for size in sizes)
        growth = max(0, peak_of(self.micro_batch, sizes, small, large) - large.peak)
        used, free = process_memory()
        # each begins with the whole model
        needed = max(begun, used + round(SPLINTERS * growth) + self.together())
        return Memory(needed, (free + used) // self.neighbours, self.device)

    def together(self) -> int:
        """Bytes that each of several processes takes more than one alone would; below 0 where they share."""
        if self.processes == 1:
            return 0
        if self.schedule.strategy == "fsdp":
            return -spared(self.training.model, self.processes)
        learning = chain(*(network.parameters() for network in self.training.networks()))
        return sum(parameter.nbytes for parameter in learning)

    @property
    def neighbours(self) -> int:
        """How many processes share the memory of this machine."""
        return self.processes // self.schedule.num_nodes

    @property
    def device(self) -> str:
        """Whose memory it is, where that is no GPU."""
        return "this machine" if self.neighbours == 1 else f"this machine for each of {self.neighbours}"

    def allocated(self, batch_size: int) -> int:
        """The most bytes that a GPU's tensors take in two steps of so many images."""
        torch.cuda.reset_peak_memory_stats()
        self.steps(2, batch_size)
        return torch.cuda.max_memory_allocated()

    def counted(self, batch_size: int) -> Alive:
        """What tensors take in two steps of so many images."""
        with Alive() as alive:
            for tensor in chain(*(weights(part) for part in self.parts())):
                alive.add(tensor)
            self.steps(2, batch_size, alive)
        return alive

    def parts(self) -> Iterator[nn.Module]:
        """Every module in memory, those outside of the training's tree too."""
        yield self.training
        yield from self.training.outside()

    def seconds(self) -> float:
        """An optimizer step's, after a first one that does not count."""
        times = self.steps(1 + STEPS, self.micro_batch)
        return sum(times[1:]) / STEPS * self.schedule.accumulate_grad_batches

    def steps(self, count: int, batch_size: int, alive: Alive | None = None) -> list[float]:
        """Do some steps in this process alone, and nothing else; the seconds of each."""
        probe = Probe(count, alive or Alive())
        schedule = replace(
            self.schedule, accumulate_grad_batches=1, devices=1, num_nodes=1, strategy="auto", max_steps=10**6
        )
        trainer = schedule.trainer(Path(), [probe], Logging(images=0))
        with self.batches_of(batch_size):
            try:
                trainer.fit(self.training)
            except Enough:
                return probe.times
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"the whole model and {batch_size} images do not fit onto {self.training.device}; "
                    f"plan with --trainer.accelerator cpu, or make the model smaller"
                ) from error
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
