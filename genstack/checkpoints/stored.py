"""A tensor that lies in a file, and how damage of the file is told."""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import error as StructError

from safetensors import SafetensorError
from torch import Tensor

from genstack.checkpoints.pickles import DAMAGED
from genstack.errors import UserError

BROKEN = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    NotImplementedError,
    StructError,
    EOFError,
    RuntimeError,
    *DAMAGED,
)


@dataclass(frozen=True)
class Stored:
    """A tensor that lies in a file.

    Args:
        shape: of the tensor.
        dtype: of its numbers, as a text (`torch.float32`, or safetensors' `F32`).
        read: gives the tensor itself, a view of memory that it may share with others.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Tensor]


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Let whatever is refused name the file that it is about."""
    try:
        yield
    except UserError as error:
        message = str(error)
        raise UserError(message if str(path) in message else f"{path}: {message}") from error


@contextmanager
def clear(path: Path) -> Iterator[None]:
    """Tell what is wrong with a file in one line that names it; for reading and nothing else.

    Any error counts as damage, so that faults of genstack in what follows would be told as such.
    """
    try:
        with about(path):
            yield
    except UserError:
        raise
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or incomplete: {error}") from error
    except (*BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # it is not there, or may not be read
        raise UserError(f"{path} is damaged or incomplete ({reason(error)})") from error


def reason(error: BaseException) -> str:
    """An error in a few words."""
    return " ".join(f"{type(error).__name__} {error}".split())[:120]
