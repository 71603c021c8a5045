"""A pseudo-random permutation that is computed, not stored, for data sets too large for a list.

A Feistel network over an even number of bits (Luby and Rackoff 1988), repeated until its value is below the
count (cycle walking: Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains"). The round function is
the mixing of splitmix64 (Steele, Lea and Flood 2014). It is not meant for cryptography.
"""

import numpy as np
from jaxtyping import Int64, UInt64

from genstack.data.seeding import mix

ROUNDS = 6


class Permutation:
    """A pseudo-random order of the numbers below `count`; slicing returns an array."""

    def __init__(self, count: int, seed: int):
        self.count = count
        self.half = np.uint64(max(1, -(-(count - 1).bit_length() // 2)))  # bits
        self.mask = np.uint64((1 << int(self.half)) - 1)
        self.keys = [np.uint64(mix(seed, number)) for number in range(ROUNDS)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, indices: slice) -> Int64[np.ndarray, " n"]:
        numbers = self.step(np.arange(*indices.indices(self.count), dtype=np.uint64))
        while (outside := numbers >= self.count).any():
            numbers[outside] = self.step(numbers[outside])
        return numbers.astype(np.int64)

    def step(self, numbers: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
        """Permute all numbers with 2 * half bits."""
        left, right = numbers >> self.half, numbers & self.mask
        for key in self.keys:
            left, right = right, left ^ (mix_bits(right ^ key) & self.mask)
        return (left << self.half) | right


def mix_bits(numbers: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Finalizer of splitmix64: every bit of the result depends on every bit of the input."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
