"""Which image each loader worker is reading, so that the one it died of has a name."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

import torch
from torch.utils.data import get_worker_info

NOTHING = -1


class Reading:
    """The number of the image that each worker reads, in memory shared with the training process."""

    def __init__(self, workers: int):
        self.numbers = torch.full((workers,), NOTHING)
        if workers:
            self.numbers.share_memory_()

    @contextmanager
    def of(self, number: int) -> Iterator[None]:
        """While this image is read."""
        worker = get_worker_info()
        if worker is None:
            yield
            return
        self.numbers[worker.id] = number
        yield
        self.numbers[worker.id] = NOTHING

    def last(self, worker: int) -> int | None:
        """The image that a worker was reading when it last told; None between two images."""
        number = int(self.numbers[worker])
        return None if number == NOTHING else number


def how_ended(worker: BaseProcess) -> str:
    """What became of a process, in words."""
    code = worker.exitcode or 0
    if code >= 0:
        return f"ended with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"was killed ({name})" if name in ("SIGKILL", "SIGTERM", "SIGINT") else f"crashed ({name})"


def hears_children() -> bool:
    """Whether handlers for processes that end can be set here."""
    return hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()


@contextmanager
def keeping_handler() -> Iterator[None]:
    """Undo torch's handler for dead workers, which raises wherever training happens to be.

    Without it a dead worker is noticed where its images are awaited, within seconds.
    """
    before = signal.getsignal(signal.SIGCHLD) if hears_children() else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGCHLD, before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Without any such handler, which another loader may have left and which raises between any two lines."""
    with keeping_handler():
        if hears_children():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        yield
