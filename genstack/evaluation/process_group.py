"""Several processes that judge one set of images: the batches are shared out, the results put in order again.

A batch is the same whichever process takes it, so that the numbers are those of a single process.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

from genstack.errors import UserError

T = TypeVar("T")

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

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Meet the others, by gloo, as torchrun says where.

        Raises:
            UserError: nobody says where.
        """
        if self.count == 1:
            yield
            return
        if "MASTER_ADDR" not in os.environ:
            raise UserError(
                f"there are {self.count} processes, but no MASTER_ADDR where they could meet; start them "
                "by torchrun"
            )
        distributed.init_process_group("gloo", rank=self.rank, world_size=self.count)
        try:
            yield
        finally:
            distributed.destroy_process_group()

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
        found = {number: part for each in self.gathered(mine) for number, part in each.items()}
        ordered = [found[number] for number in sorted(found)]
        return {name: torch.cat([part[name] for part in ordered]) for name in ordered[0]}

    def gathered(self, mine: T) -> list[T]:
        """What each process has, the first first."""
        parts = [mine] * self.count
        if self.count > 1:
            distributed.all_gather_object(parts, mine)
        return parts
