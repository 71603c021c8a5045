"""Training and validation by a hash of each image's key, so that images added later move no others.

Nothing is kept of the keys: of the hashes, the numbers of the images laid aside are, and of all others how
many of those lie before them.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import overload

import numpy as np
from jaxtyping import Float64, Int64

from genstack.errors import UserError

BLOCK = 2**16  # keys that are in memory at once


class Chosen(Sequence[int]):
    """Numbers that rise, kept as an array."""

    def __init__(self, numbers: Int64[np.ndarray, " n"]):
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> "Chosen": ...
    def __getitem__(self, index: int | slice) -> "int | Chosen":
        return Chosen(self.numbers[index]) if isinstance(index, slice) else int(self.numbers[index])

    def __iter__(self) -> Iterator[int]:
        return map(int, self.numbers)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self.numbers if dtype is None else self.numbers.astype(dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chosen) and np.array_equal(self.numbers, other.numbers)

    __hash__ = None  # type: ignore[assignment]  # as arrays and lists have none


class Others(Sequence[int]):
    """All numbers below `whole` that are not chosen, in order; looked up, not kept.

    Args:
        whole: how many numbers there are with those that are left out.
        chosen: those that are left out.
    """

    def __init__(self, whole: int, chosen: Chosen):
        self.whole, self.chosen = whole, chosen
        self.before = chosen.numbers - np.arange(len(chosen))  # others that lie before each one left out

    def __len__(self) -> int:
        return self.whole - len(self.chosen)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Chosen: ...
    def __getitem__(self, index: int | slice) -> int | Chosen:
        if isinstance(index, slice):
            places = np.arange(*index.indices(len(self)))
            return Chosen(places + np.searchsorted(self.before, places, side="right"))
        place = range(len(self))[index]  # counts from the end, and refuses, as every sequence does
        return place + int(np.searchsorted(self.before, place, side="right"))

    def __iter__(self) -> Iterator[int]:
        for first in range(0, len(self), BLOCK):
            yield from self[first : first + BLOCK]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Others) and (self.whole, self.chosen) == (other.whole, other.chosen)

    __hash__ = None  # type: ignore[assignment]  # as arrays and lists have none


@dataclass(frozen=True)
class Split:
    """Numbers of the images on either side, in the order of the source."""

    training: Sequence[int]
    validation: Sequence[int]

    @property
    def images(self) -> int:
        """How many there are on both sides together; a single one is on both."""
        return len(self.validation) + (0 if self.training == self.validation else len(self.training))

    def of(self, numbers: Sequence[int]) -> "Split":
        """The split of some images of a source, from that of their indices."""
        whole = np.asarray(numbers, np.int64)
        return Split(Chosen(whole[list(self.training)]), Chosen(whole[list(self.validation)]))


def split(places: Iterable[Float64[np.ndarray, " n"]], share: float) -> Split:
    """Lay aside about `share` of the images; with two or more, each side has at least one.

    A single image is on both sides, with a warning.

    Args:
        places: where the keys of all images lie in [0, 1), some at a time: `hashed` of them.
        share: of the images to lay aside.
    """
    if not 0 <= share < 1:
        raise UserError(
            f"validation {share} is out of range; give the share of images to lay aside, such as 0.05"
        )
    count, aside = 0, [np.empty(0, np.int64)]
    least, most = (np.inf, 0), (-np.inf, 0)  # the place that is first, and the one that is last
    for block in places:
        if len(block):
            aside.append(count + np.flatnonzero(block < share))
            least = min(least, (float(block.min()), count + int(block.argmin())))
            last = len(block) - 1 - int(block[::-1].argmax())
            most = max(most, (float(block[last]), count + last))
            count += len(block)
    if count == 1:
        warnings.warn("there is one image only: it is trained on and validated on", stacklevel=2)
        return Split(Chosen(np.zeros(1, np.int64)), Chosen(np.zeros(1, np.int64)))
    chosen = np.concatenate(aside)
    if not len(chosen):
        chosen = np.array([least[1]][:count])
    elif len(chosen) == count:
        chosen = np.delete(chosen, most[1])
    return Split(Others(count, Chosen(chosen)), Chosen(chosen))


def hashed(keys: Iterable[str]) -> Iterator[Float64[np.ndarray, " n"]]:
    """Where keys lie in [0, 1), some at a time."""
    keys = iter(keys)
    while len(block := np.fromiter(map(place, islice(keys, BLOCK)), np.float64)):
        yield block


def place(key: str) -> float:
    """Where a key lies in [0, 1)."""
    return (
        int.from_bytes(blake2b(key.encode(errors="surrogateescape"), digest_size=8).digest()) >> 11
    ) / 2**53
