"""A folder of picture files, of any nesting."""

import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from unicodedata import normalize

from jaxtyping import Float
from torch import Tensor

from genstack.data.images import SUFFIXES, Preprocessing, read
from genstack.data.names import Names
from genstack.data.source import Source, Stored, bits_of_first, stored
from genstack.errors import UserError


class FolderSource(Source):
    """Every picture file below a folder, in natural order (2 before 10); links are followed.

    With `by_folder`, the first-level folders are the classes.
    """

    def __init__(self, name: str, by_folder: bool = False):
        self.root = Path(name).expanduser()
        if not self.root.is_dir():
            raise UserError(f"data source {name} is a file; give the folder that holds the pictures")
        self.files = Names(sorted(pictures(self.root), key=natural))
        if not self.files:
            raise UserError(f"folder {name} holds no pictures ({' '.join(SUFFIXES)}), at any depth")
        if by_folder:
            self.class_names = self.folders()

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return ()

    @classmethod
    def claims(cls, name: str) -> bool:
        """Never: a name that no other kind claims is a folder's."""
        return False

    @classmethod
    def exists(cls, name: str) -> bool:
        return Path(name).expanduser().exists()

    @classmethod
    def beside(cls, name: str) -> tuple[str, ...]:
        """The folders that a mistyped name may have meant."""
        path = Path(name).expanduser()
        parent = path.parent
        if not parent.is_dir():
            return ()
        return tuple(
            str(parent / entry.name) if parent != Path() else entry.name
            for entry in sorted(parent.iterdir())
            if entry.is_dir() and not entry.name.startswith(".")
        )

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def bits(self) -> int:  # type: ignore[override]
        return bits_of_first(self)

    def path(self, number: int) -> Path:
        """Where a picture lies."""
        return self.root / self.files[number]

    def key(self, number: int) -> str:
        return normalize("NFC", self.files[number])

    def label(self, number: int) -> int:
        return self.class_names.index(self.key(number).split("/")[0]) if self.class_names else 0

    def stored(self, number: int) -> Stored:
        return stored(self.path(number))

    def image(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        raw = preprocessing.window is not None
        return read(self.path(number), preprocessing.channels, preprocessing.background, raw)

    def folders(self) -> tuple[str, ...]:
        """The first-level folders that hold pictures."""
        stray = [file for file in self.files if "/" not in file]
        if stray:
            raise UserError(
                f"{len(stray)} pictures, such as {stray[0]}, lie in {self.root} itself; "
                f"move them into a folder per class, or leave out `labels: folder`"
            )
        return tuple(dict.fromkeys(normalize("NFC", file.split("/")[0]) for file in self.files))


def natural(name: str) -> str:
    """A key that sorts numbers in names by their value, before letters; folder by folder, whatever the form.

    A number becomes its length and its digits, behind a mark that is less than any letter.
    """
    flat = normalize("NFC", name).replace("/", "\1")
    return re.sub(r"\d+", marked, flat)


def marked(number: re.Match[str]) -> str:
    """A number so that those with fewer digits come first."""
    digits = number[0].lstrip("0") or "0"
    return f"\0{chr(len(digits))}{digits}"


def pictures(root: Path) -> Iterator[str]:
    """The picture files below a folder, from there; one that links back to a folder above is entered once."""
    seen: set[str] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(place).relative_to(root).as_posix()
        for name in files:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield name if here == "." else f"{here}/{name}"
