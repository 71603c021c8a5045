"""Where data is kept that was fetched or computed once: $GENSTACK_DATA, or else ~/.cache/genstack/data."""

import os
from pathlib import Path


def cache() -> Path:
    """The folder; it need not be there yet."""
    default = Path.home() / ".cache" / "genstack" / "data"
    return Path(os.environ.get("GENSTACK_DATA", default)).expanduser()
