"""Estimates of the memory and time of a training, from a few of its steps (`genstack plan`).

Batches double in size up to the real one, as long as the next is expected to fit. If the real batch does not
fit, its peak is extrapolated linearly from the last two. On a GPU, the peak of torch's allocator counts;
on the CPU, the largest resident size. A limit of the shell (`ulimit -v`) or of a container (cgroup v2) counts
as the memory of the machine. All steps run in one process with the whole model, and the difference for
several processes is added. Validation needs less memory than a step. An adversary acts from the first step,
because its steps are the most expensive. `benchmarks/memory.py` compares estimates with real runs.
"""

import errno
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
from genstack.training.sharding import sharding_savings
from genstack.training.training import Training

MIN_BATCH = 2  # images of the first batch
STEPS = 3  # timed steps
CGROUPS = Path("/sys/fs/cgroup")
COPIES = 3  # of the weights at least: weights, gradients and a moment
#: Words of the CPU's allocators in a RuntimeError, which has no type of its own.
NO_MEMORY = ("can't allocate memory", "not enough memory", "cannot allocate memory", "bad_alloc")


class OutOfMemory(UserError):
    """A model or its batch does not fit into the memory."""


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Raise `OutOfMemory` for errors of allocators in this context."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"{what}; lower data.batch_size, data.resolution or --size") from error


def is_out_of_memory(error: Exception) -> bool:
    """Return True for errors of the allocators of GPU, CPU, Python and the system."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        words in text for words in NO_MEMORY
    )


@contextmanager
def stop_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process in the middle of a step, as nothing needs to be saved."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(frozen=True)
class Memory:
    """Peak memory of one training process.

    Args:
        needed: bytes.
        available: bytes of the device.
        device: name of the device.
        measured: True if the real batch was run, False if the peak is extrapolated.
    """

    needed: int
    available: int
    device: str
    measured: bool

    @property
    def fits(self) -> bool:
        return self.needed <= self.available


class ProbeDone(Exception):
    """Raised to end a training after the steps of a probe."""


class Probe(pl.Callback):
    """Time a few steps of a training, and stop it.

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
            raise ProbeDone


class Estimate:
    """Estimate memory and time of a training. Measuring changes the weights.

    Args:
        training: training at its start.
        schedule: schedule of the whole run.
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
        """Estimate the peak of one process, from steps that fit.

        Raises:
            OutOfMemory: a batch that should fit does not.
        """
        device = torch.cuda.get_device_name() if self.cuda else self.machine
        least = COPIES * sum(parameter.nbytes for parameter in self.trained_parameters()) + self.extra
        if least > self.available > 0:
            return Memory(least, self.available, device, measured=False)
        self.reset_peak()
        size = min(MIN_BATCH, self.micro_batch)
        peaks = {size: self.peak(size)}
        while size < self.micro_batch:
            next_size = min(2 * size, self.micro_batch)
            if len(peaks) > 1 and extrapolate(peaks, next_size) + self.extra > self.available:
                break
            size = next_size
            peaks[size] = self.peak(size)
        needed = extrapolate(peaks, self.micro_batch) + self.extra
        return Memory(needed, self.available, device, size == self.micro_batch)

    def trained_parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yield the weights that are trained."""
        return chain(*(network.parameters() for network in self.training.networks()))

    def reset_peak(self) -> None:
        """Forget the peak of what this process did before."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        with suppress(OSError):  # elsewhere than on Linux, and where the system does not allow it
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def peak(self, batch_size: int) -> int:
        """Return the peak in bytes after two steps with this batch size."""
        self.steps(2, batch_size)
        return torch.cuda.max_memory_allocated() if self.cuda else resident_peak()

    @property
    def available(self) -> int:
        """Bytes available to one process."""
        if self.cuda:
            return torch.cuda.mem_get_info()[1]
        return machine_memory() // self.local_processes

    @property
    def extra(self) -> int:
        """Bytes that one of several processes needs more than a single one; negative with sharded weights."""
        if self.schedule.processes == 1:
            return 0
        if self.schedule.strategy == "fsdp":
            return -sharding_savings(self.training.model, self.schedule.processes)
        # gradients are copied to communicate them
        return sum(parameter.nbytes for parameter in self.trained_parameters())

    @property
    def local_processes(self) -> int:
        """Number of processes on this machine."""
        return self.schedule.processes // self.schedule.num_nodes

    @property
    def machine(self) -> str:
        """Name of this machine's memory."""
        return (
            "this machine"
            if self.local_processes == 1
            else f"this machine for each of {self.local_processes}"
        )

    def seconds(self) -> float:
        """Time an optimizer step in seconds, without the first one."""
        times = self.steps(1 + STEPS, self.micro_batch)
        return sum(times[1:]) / STEPS * self.schedule.accumulate_grad_batches

    def steps(self, count: int, batch_size: int) -> list[float]:
        """Run steps in this process alone, and return the seconds of each."""
        probe = Probe(count)
        schedule = replace(
            self.schedule, accumulate_grad_batches=1, devices=1, num_nodes=1, strategy="auto", max_steps=10**6
        )
        trainer = schedule.trainer(Path(), [probe], Logging(images=0))
        self.training.data.batch_size = batch_size
        where = "GPU; plan with --trainer.accelerator cpu" if self.cuda else "this machine"
        try:
            with memory_errors(
                f"the whole model and {batch_size} images do not fit into the memory of {where}"
            ):
                trainer.fit(self.training)
        except ProbeDone:
            return probe.seconds
        except SystemExit as error:  # Lightning exits after Ctrl-C, and ignores the next one
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from error
        finally:
            self.training.data.batch_size = self.batch_size
        raise AssertionError("a probe ends before its training")


def extrapolate(peaks: dict[int, int], size: int) -> int:
    """Return the peak of a batch of `size`, on a line through the peaks of the two largest batches."""
    if size in peaks:
        return peaks[size]
    (less, low), (more, high) = sorted(peaks.items())[-2:]
    return high + max(0, high - low) * (size - more) // (more - less)


def resident_peak() -> int:
    """Return the peak resident size of this process in bytes; 0 where it is unknown."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux; getrusage would return the peak of the parent, if larger
        return kilobytes(status, "VmHWM") * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def machine_memory() -> int:
    """Return the bytes that this process has or could get; 0 where it is unknown."""
    table = Path("/proc/meminfo")
    if table.exists():
        free = min([kilobytes(table, "MemAvailable") * 1024, *free_below_limits()])
        return max(0, free) + kilobytes(Path("/proc/self/status"), "VmRSS") * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0


def free_below_limits() -> Iterator[int]:
    """Yield the bytes left below each limit of the shell and of the container (Linux)."""
    own = Path("/proc/self")
    if limit := re.search(r"^Max address space +(\d+)", (own / "limits").read_text(), re.MULTILINE):
        yield int(limit[1]) - kilobytes(own / "status", "VmSize") * 1024
    folder = CGROUPS / (own / "cgroup").read_text().rpartition("0::/")[2].strip()
    for group in (folder, *folder.parents):
        with suppress(OSError, ValueError):  # the root has no such file, and no limit is "max"
            most, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
            cached = re.search(r"^inactive_file (\d+)", (group / "memory.stat").read_text(), re.MULTILINE)
            yield most - used + int(cached[1] if cached else 0)


def kilobytes(file: Path, name: str) -> int:
    """Read a number from a file of /proc."""
    lines = file.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
