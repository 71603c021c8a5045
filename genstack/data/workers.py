"""Loader workers that die: which image they were reading, and how they ended."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

import torch
from torch.utils.data import get_worker_info

NONE = -1


class ReadingProgress:
    """Number of the image that each worker is reading, in shared memory."""

    def __init__(self, workers: int):
        self.numbers = torch.full((workers,), NONE)
        if workers:
            self.numbers.share_memory_()

    @contextmanager
    def of(self, number: int) -> Iterator[None]:
        """Record the image while it is read."""
        worker = get_worker_info()
        if worker is None:
            yield
            return
        self.numbers[worker.id] = number
        yield
        self.numbers[worker.id] = NONE

    def last(self, worker: int) -> int | None:
        """Number of the image that a worker was reading; None between two images."""
        number = int(self.numbers[worker])
        return None if number == NONE else number


def describe_exit(worker: BaseProcess) -> str:
    """Describe how a process ended."""
    code = worker.exitcode or 0
    if code >= 0:
        return f"ended with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"was killed ({name})" if name in ("SIGKILL", "SIGTERM", "SIGINT") else f"crashed ({name})"


def can_set_child_handler() -> bool:
    """Return True if a handler for SIGCHLD can be set here."""
    return hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()


@contextmanager
def restored_child_handler() -> Iterator[None]:
    """Restore the handler that torch replaces: torch's raises an error anywhere in training if a worker dies.

    Without it, the loader raises the error within seconds.
    """
    before = signal.getsignal(signal.SIGCHLD) if can_set_child_handler() else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGCHLD, before)


@contextmanager
def default_child_handler() -> Iterator[None]:
    """Suspend a handler that another loader has set."""
    with restored_child_handler():
        if can_set_child_handler():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        yield
