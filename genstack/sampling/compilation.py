"""Choice between compiled networks and networks as they are, for a number of batches of samples."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Literal

import torch
from torch import Tensor

from genstack.sampling.series import pad_batch

#: Seconds of sampling from which `auto` compiles: it takes up to 40 seconds, and saves a third or more.
WORTHWHILE = 150.0
Mode = bool | Literal["auto"]


class Compilation:
    """Sample batches by compiled networks: always, never, or with `auto` once that saves time.

    `auto` times the first batch. It compiles if the remaining batches would take minutes, and stops if
    compiled batches are slower.

    Args:
        mode: True, False or auto.
        batches: number of batches.
        compiled: makes the context in which networks are compiled.
        obstacle: tells what keeps this machine from compiling; "" for nothing.
    """

    def __init__(
        self,
        mode: Mode,
        batches: int,
        compiled: Callable[[], AbstractContextManager[None]],
        obstacle: Callable[[], str] = str,
    ):
        self.mode, self.left, self.compiled, self.obstacle = mode, batches, compiled, obstacle
        self.stack = ExitStack()
        self.active = self.used = False
        self.seconds: list[float] = []  # of the batches since networks were last compiled or not
        self.plain = 0.0  # seconds of a batch without compiling

    def __enter__(self) -> "Compilation":
        if self.mode is True and self.left:
            print("the first batch waits for the compiler, half a minute or more", file=sys.stderr)
            self._start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def sample(
        self, draw: Callable[[Sequence[int]], Tensor], indices: Sequence[int], batch_size: int
    ) -> Tensor:
        """Sample the images of a batch with `draw`, from their indices."""
        padded = pad_batch(indices, batch_size if self.active else 0)
        begun = time.monotonic()
        images = draw(padded)[: len(indices)]
        if images.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.monotonic() - begun)
        self.left -= 1
        if self.mode == "auto" and self.left > 0:
            self._decide()
        return images

    def _decide(self) -> None:
        """Compile after the first batch, or stop after the first batch that did not wait for the compiler."""
        if not self.active and not self.plain:
            self.plain = self.seconds[0]
            remaining = self.left * self.plain
            if remaining < WORTHWHILE:
                return
            batches = f"{self.left} more batches would take {remaining / 60:.1f} minutes"
            if reason := self.obstacle():
                print(f"not compiled: {batches}, but {reason}", file=sys.stderr)
                return
            print(f"compiling: {batches}; --compile false leaves it out", file=sys.stderr)
            self._start()
        elif self.active and len(self.seconds) == 2 and self.seconds[1] > self.plain:
            share = self.seconds[1] / self.plain
            print(f"no longer compiled: a batch took {share:.2f} of its time before", file=sys.stderr)
            self._stop()

    def _start(self) -> None:
        self.stack.enter_context(self.compiled())
        self.active, self.used, self.seconds = True, True, []

    def _stop(self) -> None:
        self.stack.close()
        self.active, self.seconds = False, []
