"""Errors about a damaged file, in one line that names it."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from struct import error as StructError

from safetensors import SafetensorError

from genstack.errors import UserError

#: Errors of readers for damaged files.
DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    SafetensorError,
    StructError,
    TypeError,
    UnpicklingError,
    ValueError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
)


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Prefix UserErrors raised in the block with the file's path."""
    try:
        yield
    except UserError as error:
        message = str(error)
        raise UserError(message if str(path) in message else f"{path}: {message}") from error


@contextmanager
def damage_errors(path: Path) -> Iterator[None]:
    """Report any error raised in the block as damage of the file."""
    try:
        with file_errors(path):
            yield
    except UserError:
        raise
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # not found, or no permission
        raise UserError(f"{path} is damaged or incomplete ({reason(error)})") from error


def reason(error: BaseException) -> str:
    """Shorten an error to one line."""
    return " ".join(f"{type(error).__name__} {error}".split())[:120]
