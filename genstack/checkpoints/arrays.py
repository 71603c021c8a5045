"""Pickles of plain numpy arrays, read by an unpickler that can build nothing else."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from genstack.errors import UserError

REBUILD = np.empty(0).__reduce__()[0]  # numpy's `_reconstruct`, wherever this numpy keeps it
ALLOWED = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): REBUILD,
    ("numpy._core.multiarray", "_reconstruct"): REBUILD,
}


class ArrayUnpickler(pickle.Unpickler):
    """Dictionaries, lists and numpy arrays; every other name is refused before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise UserError(
                f"this pickle asks for {module}.{name}, and only plain numpy arrays are read from pickles"
            )
        return ALLOWED[module, name]


def read_arrays(path: Path) -> Any:
    """What a pickle of numpy arrays holds. Check the file's hash first: even plain data can be wrong data."""
    with path.open("rb") as file, warnings.catch_warnings():
        # numpy 2.4 dislikes how numpy of old pickled a dtype's alignment; the value is right
        warnings.filterwarnings("ignore", message=".*align should be passed")
        return ArrayUnpickler(file).load()
