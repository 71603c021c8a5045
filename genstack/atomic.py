"""Files appear whole or not at all: written beside their place, flushed to the disk, then renamed."""

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
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; on leaving, that file takes the place of `path` in one step.

    If the body raises, `path` stays as it was and nothing is left beside it.

    Raises:
        OSError: it cannot be written, such as for want of space; `path` is named.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".writing", dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        with named(path):
            yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    flush_folder(path.parent)


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to fill; on leaving it appears at its place in one step, where nothing or an empty one may be.

    If the body raises, nothing appears and nothing is left beside it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".writing", dir=folder.parent))
    try:
        with named(folder):
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


def begun(folder: Path, name: str = "*") -> Iterator[Path]:
    """Unfinished files of a folder that were to become `name`, of living or killed writers."""
    return folder.glob(f".{name if name == '*' else escape(name)}.*.writing")


@contextmanager
def shared(folder: Path, leftovers: Iterable[Path]) -> Iterator[None]:
    """Hold a folder that several processes may fill at once; who finds no other one there tidies up first.

    The system lets go of it when a process ends, however it does.

    Args:
        folder: it; made where it is not there, and then removed again if nothing comes into it.
        leftovers: the files to remove, as `begun` finds them. They stay where a system has no such locks.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # another one is at work, and may be writing these
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in list(leftovers):
                path.unlink()
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)
        if made:
            with suppress(OSError):  # there is something in it
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
def named(path: Path) -> Iterator[None]:
    """Let an error of writing say where to: of a full disk neither Python nor safetensors does."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def flush_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
