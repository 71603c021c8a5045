"""Many names stored as one long text, with 8 bytes each beside their letters."""

from array import array
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np


class Names(Sequence[str]):
    """A sequence of names, decoded on access.

    Arrays stay shared with the workers of a loader; Python objects would be copied at first use.
    """

    def __init__(self, names: Iterable[str]):
        letters, ends = bytearray(), array("q", [0])
        for name in names:
            letters += name.encode(errors="surrogatepass")  # file names that are not UTF-8
            ends.append(len(letters))
        self.letters, self.ends = np.frombuffer(letters, np.uint8), np.frombuffer(ends, np.int64)

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]  # counts from the end, and refuses, as every sequence does
        first, end = self.ends[number : number + 2]
        return self.letters[first:end].tobytes().decode(errors="surrogatepass")

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.letters.nbytes + self.ends.nbytes
