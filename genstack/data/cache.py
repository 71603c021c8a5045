"""The cache of fetched and computed data: $GENSTACK_DATA, or else ~/.cache/genstack/data."""

import os
import threading
from pathlib import Path

from genstack.errors import UserError


def cache() -> Path:
    """Path of the cache folder, which may not exist yet."""
    default = Path.home() / ".cache" / "genstack" / "data"
    return Path(os.environ.get("GENSTACK_DATA", default)).expanduser()


def limit() -> int | None:
    """Bytes that fetched files may take ($GENSTACK_DATA_GB); None for no limit."""
    said = os.environ.get("GENSTACK_DATA_GB")
    try:
        return None if said is None else int(float(said) * 1e9)
    except (ValueError, OverflowError):
        raise UserError(f"GENSTACK_DATA_GB must be a number of gigabytes, such as 200; got {said}") from None


class Room:
    """The limit on the disk space of fetched files, shared by threads.

    Processes that read the same shards count the same ones in the same order, whoever fetches them.

    Args:
        folder: of the files.
        most: bytes; None for no limit.
    """

    def __init__(self, folder: Path, most: int | None):
        self.most, self.lock = most, threading.Lock()
        self.sizes = {path.name: path.stat().st_size for path in folder.glob("*")} if most is not None else {}
        self.used = sum(self.sizes.values())

    def take(self, place: Path, size: int) -> bool:
        """Reserve space for a file; return True if it exists or still fits."""
        with self.lock:
            more = 0 if place.name in self.sizes else size
            there = place.exists()  # from before, or because another process has fetched it meanwhile
            fits = there or self.most is None or self.used + more <= self.most
            if fits:
                self.sizes[place.name] = size
                self.used += more
            return fits
