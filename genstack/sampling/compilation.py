"""Choice between compiled networks and networks as they are, for a number of batches of samples."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from genstack.compilation import CompilationChoice, Mode, Work
from genstack.sampling.series import pad_batch

#: `auto` compiles if at least 150 seconds of sampling remain. Compiling takes up to 40 seconds and saves a
#: third or more of the rest.
BATCHES = Work("batch", "batches", "--compile", worthwhile=150.0)


class Compilation(CompilationChoice):
    """Sample batches by compiled networks: always, never, or with `auto` once that saves time.

    Args:
        mode: True, False or auto.
        batches: number of batches.
        compiled: makes the context in which networks are compiled.
        obstacle: returns the reason why this machine cannot compile; "" if it can.
    """

    def __init__(
        self,
        mode: Mode,
        batches: int,
        compiled: Callable[[], AbstractContextManager[None]],
        obstacle: Callable[[], str] = str,
    ):
        super().__init__(BATCHES, mode, batches, compiled, obstacle)

    def __enter__(self) -> "Compilation":
        if self.mode is True and self.left:
            self.print("the first batch waits for the compiler, half a minute or more")
            self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def sample(
        self, draw: Callable[[Sequence[int]], Tensor], indices: Sequence[int], batch_size: int
    ) -> Tensor:
        """Sample the images of a batch with `draw`, from their indices."""
        padded = pad_batch(indices, batch_size if self.active else 0)
        begun = time.monotonic()
        images = draw(padded)[: len(indices)]
        if images.device.type == "cuda":
            torch.cuda.synchronize()
        self.record(time.monotonic() - begun)
        return images
