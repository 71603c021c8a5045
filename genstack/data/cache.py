"""Where data is kept that was fetched or computed once: $GENSTACK_DATA, or else ~/.cache/genstack/data."""

import os
import threading
from pathlib import Path

from genstack.errors import UserError


def cache() -> Path:
    """The folder; it need not be there yet."""
    default = Path.home() / ".cache" / "genstack" / "data"
    return Path(os.environ.get("GENSTACK_DATA", default)).expanduser()


def limit() -> int | None:
    """Bytes that fetched files may take, as $GENSTACK_DATA_GB says; None for all that there are."""
    said = os.environ.get("GENSTACK_DATA_GB")
    try:
        return None if said is None else int(float(said) * 1e9)
    except (ValueError, OverflowError):
        raise UserError(f"GENSTACK_DATA_GB={said} is no number of gigabytes, such as 200") from None


class Room:
    """What is left of the bytes that fetched files may take; threads share it.

    Args:
        folder: of the files.
        most: bytes; None for no limit.
    """

    def __init__(self, folder: Path, most: int | None):
        self.most, self.lock = most, threading.Lock()
        self.used = sum(path.stat().st_size for path in folder.glob("*")) if most is not None else 0

    def take(self, size: int) -> bool:
        """Whether a file of this size still fits; then it counts."""
        with self.lock:
            fits = self.most is None or self.used + size <= self.most
            self.used += size if fits else 0
            return fits
