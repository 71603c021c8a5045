"""A folder of picture files, of any nesting."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

from genstack.data.images import ENDINGS, SHEET, SUFFIXES, UNREAD, read_mark
from genstack.data.source import FURTHER, MULTIFRAME, OWN, FileSource, further_frames
from genstack.data.text import Names, clean, existing, expand, natural_key
from genstack.errors import UserError

RUN = (
    {"config.yaml", "metrics.jsonl"},
    {"model.json", "model.safetensors"},
)  # files that mark a run's folder
HIDDEN = "hidden pictures (names that begin with a dot)"


class FolderSource(FileSource):
    """Every picture file below a folder, in natural order (2 before 10); links are followed once.

    Pictures that genstack wrote are left out: run folders and sheets always, samples if there are other
    pictures. With `by_folder`, the first-level folders are the classes.
    """

    def __init__(self, name: str, by_folder: bool = False):
        self.root = existing(expand(name))
        if not self.root.is_dir():
            raise UserError(f"data source {name} is a file; expected a folder of pictures")
        self.listing = Listing(self.root)
        self.files = Names(sorted(self.listing.pictures or self.listing.samples, key=natural_key))
        self.generated = not self.listing.pictures
        if not self.files:
            omitted = "".join(f"; {count} {what} are not read" for what, count in self.omitted.items())
            raise UserError(f"folder {name} holds no pictures ({' '.join(SUFFIXES)}) at any depth{omitted}")
        self.listing.release()
        if by_folder:
            self.class_names = self.folders()
            self.listing.count_empty(self.class_names)
        self.numbers = {name: number for number, name in enumerate(self.class_names)}

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return ()

    @classmethod
    def claims(cls, name: str) -> bool:
        """Return False: `open_source` tries a folder last."""
        return False

    @classmethod
    def exists(cls, name: str) -> bool:
        return existing(expand(name)).exists()

    @classmethod
    def beside(cls, name: str) -> tuple[str, ...]:
        """Folders beside the named one, for suggestions."""
        path = expand(name)
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

    def key(self, number: int) -> str:
        return normalize("NFC", self.files[number])

    def label(self, number: int) -> int:
        return self.numbers[class_of(self.files[number])] if self.class_names else 0

    @property
    def omitted(self) -> dict[str, int]:
        several = (number for number, file in enumerate(self.files) if file.lower().endswith(MULTIFRAME))
        further = further_frames(map(self.file, several))
        return self.listing.omitted | ({FURTHER: further} if further else {})

    def file(self, number: int) -> tuple[Path, str]:
        return self.path(number), str(self.path(number))

    def path(self, number: int) -> Path:
        """Path of a picture."""
        return self.root / self.files[number]

    def folders(self) -> tuple[str, ...]:
        """The first-level folders that hold pictures."""
        stray = [file for file in self.files if "/" not in file]
        if stray:
            raise UserError(
                f"{len(stray)} pictures, such as {stray[0]}, are in {self.root} itself; "
                f"move them into a folder per class, or leave out `labels: folder`"
            )
        return tuple(dict.fromkeys(map(class_of, self.files)))


def class_of(file: str) -> str:
    """The name of the first folder of a path."""
    return clean(normalize("NFC", file.split("/", 1)[0]))


class Listing:
    """The files below a folder: pictures, samples of genstack, and counts of what is left out.

    Args:
        root: the folder. Links to folders are followed after all real folders, each folder is entered once.
    """

    def __init__(self, root: Path):
        self.root = root
        self.pictures: list[str] = []
        self.samples: list[str] = []
        self.classes: list[str] = []  # first-level folders
        self.counts: Counter[str] = Counter()
        self.seen: set[str] = set()
        links = self.walk(root)
        for link in links:  # grows as it is read
            links += self.walk(link)

    def walk(self, top: Path) -> list[Path]:
        """Add the files of a folder and of real folders below it, and return the links to other folders."""
        links: list[Path] = []
        for place, folders, files in os.walk(top, onerror=self.count_locked):
            path, real = Path(place), os.path.realpath(place)
            here = path.relative_to(self.root).as_posix()
            if real in self.seen:
                self.counts["links to folders that are read already"] += 1
                folders.clear()
            elif here != "." and any(known <= {*files} for known in RUN):
                self.counts[OWN] += pictures_below(path)
                folders.clear()
            else:
                self.counts[HIDDEN] += sum(pictures_below(path / name) for name in folders if name[0] == ".")
                folders[:] = sorted(name for name in folders if name[0] != ".")
                links += [path / name for name in folders if (path / name).is_symlink()]
                self.classes += folders if here == "." else []
                for name in files:
                    self.add(name if here == "." else f"{here}/{name}", path / name)
            self.seen.add(real)
        return links

    def count_locked(self, error: OSError) -> None:
        """Count a folder that cannot be read."""
        self.counts["folders that cannot be read (check their permissions)"] += 1

    def count_empty(self, classes: Sequence[str]) -> None:
        """Count first-level folders without a picture, which became no class."""
        empty = {clean(normalize("NFC", name)) for name in self.classes} - {*classes}
        self.counts["folders of classes without a picture"] += len(empty)

    def add(self, name: str, path: Path) -> None:
        """Add a file to the pictures, the samples or the counts."""
        if path.name.startswith("."):
            if name.lower().endswith(SUFFIXES) and not path.name.startswith("._"):  # of macOS, no picture
                self.counts[HIDDEN] += 1
            return
        if not name.lower().endswith(SUFFIXES):
            if UNREAD.search(name):
                self.counts[f"{path.suffix.lower()} files"] += 1
            return
        mark = read_mark(path) if name.lower().endswith(ENDINGS["PNG"]) else None
        if mark is None:
            self.pictures.append(name)
        elif mark.startswith(SHEET):
            self.counts[OWN] += 1
        else:
            self.samples.append(name)

    @property
    def omitted(self) -> dict[str, int]:
        """Counts of the files that are left out."""
        return {what: count for what, count in self.counts.items() if count}

    def release(self) -> None:
        """Release the lists of names, and count samples that are left out."""
        self.counts[OWN] += len(self.samples) if self.pictures else 0
        self.pictures, self.samples = [], []


def pictures_below(folder: Path) -> int:
    """Count the picture files below a folder."""
    return sum(name.lower().endswith(SUFFIXES) for _, _, files in os.walk(folder) for name in files)
