"""Several processes that judge one set of images: the batches are shared out, the results put in order again.

A batch is the same whichever process takes it, so that the numbers are those of a single process.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from genstack.dist import gather_objects, gloo_group

#: What is known of each of some images, by name, one row for each.
Columns = dict[str, Tensor]


@dataclass(frozen=True)
class ProcessGroup:
    """One of several processes.

    Args:
        rank: its number, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def joined(self) -> AbstractContextManager[None]:
        """Join the other processes, at the addresses that torchrun gives."""
        return gloo_group(self.rank, self.count)

    def columns(self, count: int, batch_size: int, look: Callable[[Sequence[int]], Columns]) -> Columns:
        """What `look` finds of each of `count` images, in their order, for all processes.

        Args:
            count: of images.
            batch_size: images of one call of `look`.
            look: columns of the images with these numbers.
        """
        batches = [range(first, min(first + batch_size, count)) for first in range(0, count, batch_size)]
        mine = {
            number: look(batch) for number, batch in enumerate(batches) if number % self.count == self.rank
        }
        found = {number: part for each in gather_objects(mine) for number, part in each.items()}
        ordered = [found[number] for number in sorted(found)]
        return {name: torch.cat([part[name] for part in ordered]) for name in ordered[0]}
