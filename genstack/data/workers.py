"""The image that each loader worker is reading, so that an error names the one a worker died of."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

import torch
from torch.utils.data import get_worker_info

NOTHING = -1


class ReadingProgress:
    """The number of the image that each worker reads, in memory shared with the training process."""

    def __init__(self, workers: int):
        self.numbers = torch.full((workers,), NOTHING)
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
        self.numbers[worker.id] = NOTHING

    def last(self, worker: int) -> int | None:
        """The image a worker was reading; None between two images."""
        number = int(self.numbers[worker])
        return None if number == NOTHING else number


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
    """Remove the handler that torch sets: it raises an error anywhere in training when a worker dies.

    Without it the error is raised within seconds in the loader, which waits for the worker.
    """
    before = signal.getsignal(signal.SIGCHLD) if can_set_child_handler() else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGCHLD, before)


@contextmanager
def default_child_handler() -> Iterator[None]:
    """Suspend the handler that another loader may have left."""
    with restored_child_handler():
        if can_set_child_handler():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        yield
