"""Atomic writes: files are written under a temporary name, flushed to the disk, then renamed."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from safetensors import SafetensorError

from genstack.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path, renamed to `path` on exit; if the block raises, `path` does not change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".writing", dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        with file_named(path):
            yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    flush_folder(path.parent)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, and rename it to `folder` on exit; an empty folder there is replaced."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".writing", dir=folder.parent))
    try:
        with file_named(folder):
            yield partial
        for path in partial.rglob("*"):
            if path.is_file():
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
                path.chmod(0o644)
        partial.chmod(0o755)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    flush_folder(folder.parent)


def temporary_files(folder: Path, name: str = "*") -> Iterator[Path]:
    """Temporary files in a folder for `name`, of running or killed processes."""
    return folder.glob(f".{name if name == '*' else escape(name)}.*.writing")


@contextmanager
def shared_folder(folder: Path, leftovers: Iterable[Path]) -> Iterator[None]:
    """Share a folder between processes that write to it; the first one removes leftovers of killed processes.

    Args:
        folder: the folder; it is created, and removed again if it stays empty.
        leftovers: the files to remove, as `temporary_files` finds them. They stay where a system has no such
            locks.
    """
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # another process may be writing these files
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in list(leftovers):
                path.unlink()
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)
        if created:
            with suppress(OSError):  # not empty
                folder.rmdir()


@contextmanager
def exclusive(file: Path, message: str = "") -> Iterator[None]:
    """Hold a lock file against other processes; the system releases it when the process ends.

    While another process holds it, wait, or raise UserError with `message` if there is one. The file is never
    removed: otherwise two processes could lock two files of the same name.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as opened:
        try:
            if fcntl is not None:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB if message else fcntl.LOCK_EX)
        except BlockingIOError:
            raise UserError(message) from None
        yield


@contextmanager
def file_named(path: Path) -> Iterator[None]:
    """Add the path to write errors that do not name it, such as a full disk."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def flush_folder(folder: Path) -> None:
    """Flush renames in a folder to the disk."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
