"""Text from outside: encoding, accents of paths, natural order, and compact storage of many names."""

import os
import re
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload
from unicodedata import normalize

import numpy as np


def clean(text: str) -> str:
    """Make a text encodable in UTF-8.

    A byte of a file name that is not UTF-8 is read as Latin-1; half of a surrogate pair becomes U+FFFD.
    """
    return text if encodable(text) else re.sub("[\ud800-\udfff]", replace_surrogate, text)


def replace_surrogate(half: re.Match[str]) -> str:
    byte = ord(half[0]) - 0xDC00  # Python reads the byte 0xE9 of a name as U+DCE9
    return chr(byte) if 0x80 <= byte <= 0xFF else "\ufffd"


def encodable(text: str, errors: str = "strict") -> bool:
    """Return True if UTF-8 can hold a text."""
    try:
        text.encode(errors=errors)
    except UnicodeEncodeError:
        return False
    return True


def expand(place: str | Path) -> Path:
    """Replace `~` and `~name` by a home folder; names that no user has stay as they are."""
    return Path(os.path.expanduser(place))  # noqa: PTH111 - that of Path raises for unknown names


def existing(path: Path) -> Path:
    """Return a path, with accents in the form in which the disk stores them (NFC or NFD)."""
    if str(path).isascii() or path.exists():
        return path
    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        forms = (part, normalize("NFC", part), normalize("NFD", part))
        found /= next((form for form in forms if (found / form).exists()), part)
    return found


def natural_key(name: str) -> str:
    """Sort key by which numbers in names compare by their values and come before letters, folder by folder.

    A number becomes its length and its digits behind a character below all letters.
    """
    return re.sub(r"\d+", sortable_number, normalize("NFC", name).replace("/", "\1"))


def sortable_number(number: re.Match[str]) -> str:
    digits = number[0].lstrip("0") or "0"
    return f"\0{chr(len(digits))}{digits}"


class Names(Sequence[str]):
    """A sequence of names, decoded on access.

    Arrays stay shared with the workers of a loader; Python objects would be copied at first use.
    """

    def __init__(self, names: Iterable[str]):
        letters, ends = bytearray(), array("q", [0])
        for name in names:
            letters += name.encode(errors="surrogatepass")  # names may not be UTF-8
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
        number = range(len(self))[index]  # raises IndexError
        first, end = self.ends[number : number + 2]
        return self.letters[first:end].tobytes().decode(errors="surrogatepass")

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.letters.nbytes + self.ends.nbytes
