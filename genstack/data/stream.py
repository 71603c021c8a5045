"""The order of training: endless shuffled epochs that can start anywhere."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import count

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Sampler

from genstack.data.permutation import Permutation
from genstack.data.seeding import mix
from genstack.errors import UserError

LARGEST_LIST = 2**24  # images up to which a permutation is stored, in 8 bytes each


@lru_cache(maxsize=2)  # a batch may span two epochs
def order(images: int, seed: int, epoch: int) -> Int[Tensor, " images"] | Permutation:
    """Permutation of an epoch; its slices are numbers of images."""
    if images > LARGEST_LIST:
        return Permutation(images, mix(seed, epoch))
    return torch.randperm(images, generator=torch.Generator().manual_seed(mix(seed, epoch)))


class Stream(Sampler[tuple[int, int]]):
    """Endless pairs (epoch, index) for one of several processes.

    Position p of the stream is image p mod n of the permutation of epoch p // n. A step takes the next
    `processes * batch_size` positions, of which each process has its own consecutive `batch_size`.

    Args:
        images: number of images n.
        batch_size: images per step in one process.
        seed: seed of the permutations.
        start: positions already consumed by all processes together.
        rank: number of this process.
        processes: number of processes.
    """

    def __init__(
        self, images: int, batch_size: int, seed: int, start: int = 0, rank: int = 0, processes: int = 1
    ):
        if images < 1 or batch_size < 1 or start < 0 or not 0 <= rank < processes:
            raise UserError(
                f"invalid stream of {images} images in batches of {batch_size} from {start} for rank {rank} "
                f"of {processes}; expected at least 1 image, batches of at least 1, and ranks from 0"
            )
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.start, self.rank, self.processes = start, rank, processes

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for batch in count(self.rank, self.processes):
            first = self.start + batch * self.batch_size
            end = first + self.batch_size
            while first < end:
                epoch, place = divmod(first, self.images)
                part = order(self.images, self.seed, epoch)[place : place + end - first].tolist()
                yield from ((epoch, number) for number in part)
                first += len(part)
