"""Split into training and validation by a hash of each image's key.

Adding images does not move others between the sets. Only the numbers of the validation images are stored; the
numbers of the training images are computed from them.
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

BLOCK = 2**16  # keys in memory at once


class Indices(Sequence[int]):
    """Numbers of images, stored as an array."""

    def __init__(self, numbers: Int64[np.ndarray, " n"]):
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> "Indices": ...
    def __getitem__(self, index: int | slice) -> "int | Indices":
        return Indices(self.numbers[index]) if isinstance(index, slice) else int(self.numbers[index])

    def __iter__(self) -> Iterator[int]:
        return map(int, self.numbers)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self.numbers if dtype is None else self.numbers.astype(dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Indices) and np.array_equal(self.numbers, other.numbers)

    __hash__ = None  # type: ignore[assignment]  # as for arrays and lists


class Complement(Sequence[int]):
    """All numbers below `whole` except the chosen ones, in order; computed, not stored."""

    def __init__(self, whole: int, chosen: Indices):
        self.whole, self.chosen = whole, chosen
        self.before = chosen.numbers - np.arange(len(chosen))  # remaining numbers before each chosen one

    def __len__(self) -> int:
        return self.whole - len(self.chosen)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Indices: ...
    def __getitem__(self, index: int | slice) -> int | Indices:
        if isinstance(index, slice):
            indices = np.arange(*index.indices(len(self)))
            return Indices(indices + np.searchsorted(self.before, indices, side="right"))
        index = range(len(self))[index]  # raises IndexError
        return index + int(np.searchsorted(self.before, index, side="right"))

    def __iter__(self) -> Iterator[int]:
        for first in range(0, len(self), BLOCK):
            yield from self[first : first + BLOCK]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Complement) and (self.whole, self.chosen) == (other.whole, other.chosen)

    __hash__ = None  # type: ignore[assignment]  # as for arrays and lists


@dataclass(frozen=True)
class Split:
    """Numbers of the training and validation images, in the order of the source."""

    training: Sequence[int]
    validation: Sequence[int]

    @property
    def images(self) -> int:
        """Number of images on both sides together."""
        return len(self.validation) + (0 if self.training == self.validation else len(self.training))

    def of(self, numbers: Sequence[int]) -> "Split":
        """Map a split of positions in `numbers` to the image numbers there."""
        whole = np.asarray(numbers, np.int64)
        return Split(Indices(whole[list(self.training)]), Indices(whole[list(self.validation)]))


def split(hashes: Iterable[Float64[np.ndarray, " n"]], share: float) -> Split:
    """Put about `share` of the images into validation; with two or more, each side has at least one.

    A single image is on both sides, with a warning.

    Args:
        hashes: hashes of all keys in blocks, see `hash_keys`.
        share: share of the validation images.
    """
    if not 0 <= share < 1:
        raise UserError(
            f"validation must be a share of the images from 0 to below 1, such as 0.05; got {share}"
        )
    count, parts = 0, [np.empty(0, np.int64)]
    least, most = (np.inf, 0), (-np.inf, 0)  # smallest and largest hash, with their numbers
    for block in hashes:
        if len(block):
            parts.append(count + np.flatnonzero(block < share))
            least = min(least, (float(block.min()), count + int(block.argmin())))
            last = len(block) - 1 - int(block[::-1].argmax())
            most = max(most, (float(block[last]), count + last))
            count += len(block)
    if count == 1:
        warnings.warn("only one image: it is used for training and for validation", stacklevel=2)
        return Split(Indices(np.zeros(1, np.int64)), Indices(np.zeros(1, np.int64)))
    chosen = np.concatenate(parts)
    if not len(chosen):
        chosen = np.array([least[1]][:count])
    elif len(chosen) == count:
        chosen = np.delete(chosen, most[1])
    return Split(Complement(count, Indices(chosen)), Indices(chosen))


def hash_keys(keys: Iterable[str]) -> Iterator[Float64[np.ndarray, " n"]]:
    """Hash keys to [0, 1), in blocks."""
    keys = iter(keys)
    while len(block := np.fromiter(map(hash_key, islice(keys, BLOCK)), np.float64)):
        yield block


def hash_key(key: str) -> float:
    """Hash a key to [0, 1)."""
    return (
        int.from_bytes(blake2b(key.encode(errors="surrogateescape"), digest_size=8).digest()) >> 11
    ) / 2**53
