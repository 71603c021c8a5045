"""The cache of downloads and indices: $GENSTACK_DATA, or ~/.cache/genstack/data."""

import os
import threading
from pathlib import Path

from genstack.errors import UserError


def cache() -> Path:
    """Path of the cache; the folder may not exist."""
    default = Path.home() / ".cache" / "genstack" / "data"
    return Path(os.environ.get("GENSTACK_DATA", default)).expanduser()


def limit() -> int | None:
    """Maximum size of downloads in bytes ($GENSTACK_DATA_GB); None for no limit."""
    value = os.environ.get("GENSTACK_DATA_GB")
    try:
        return None if value is None else int(float(value) * 1e9)
    except (ValueError, OverflowError):
        raise UserError(f"GENSTACK_DATA_GB must be a number of gigabytes, such as 200; got {value}") from None


class Quota:
    """The limit on the size of downloads in a folder, shared by threads; None for no limit.

    Processes that open the same shards in the same order agree on which ones are downloaded.
    """

    def __init__(self, folder: Path, limit: int | None):
        self.limit, self.lock = limit, threading.Lock()
        files = folder.glob("*") if limit is not None else ()
        self.sizes = {path.name: path.stat().st_size for path in files}
        self.used = sum(self.sizes.values())

    def reserve(self, path: Path, size: int) -> bool:
        """Reserve space for a file; return True if it exists or still fits."""
        with self.lock:
            more = 0 if path.name in self.sizes else size
            exists = path.exists()  # another process may have downloaded it meanwhile
            fits = exists or self.limit is None or self.used + more <= self.limit
            if fits:
                self.sizes[path.name] = size
                self.used += more
            return fits
