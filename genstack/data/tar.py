"""Places of the members of a tar file, as Python's tarfile finds them.

The file may come from a stranger. Nothing is unpacked, no name is used as a path, and no more is read at once
than a header may have.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase

BLOCK = 512
LONGEST_NAME = 1024
LONGEST_HEADER = 2**16  # bytes of a long name or pax header


class DamagedTarError(Exception):
    """A file that is not a tar file to its end; the members before are whole."""


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in a tar file: its name, and the place of its bytes."""

    name: str
    start: int
    size: int


class Headers:
    """A file that gives tarfile no more bytes at once than a header may have.

    Args:
        file: the tar file.
    """

    def __init__(self, file: BufferedIOBase):
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        """The next bytes."""
        if not 0 <= size <= LONGEST_HEADER:
            raise DamagedTarError(f"a name or header has {size} bytes, more than {LONGEST_HEADER}")
        return self.file.read(size)


def members(file: BufferedIOBase, length: int) -> Iterator[Member]:
    """The regular files in a tar file of this length, in order.

    Raises:
        DamagedTarError: after the last whole member, if the file does not end as tar files do.
    """
    cut_off = f"it breaks off at byte {length}, before the end that a tar file has"
    try:
        file.seek(0)
        archive = tarfile.TarFile(fileobj=Headers(file), encoding="utf-8", errors="replace")  # type: ignore[arg-type]
        while (found := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all of them
            end = found.offset_data + found.size
            if found.size < 0 or len(found.name) > LONGEST_NAME:
                raise DamagedTarError(
                    f"the header before byte {found.offset_data} has a size of {found.size} and a name of "
                    f"{len(found.name)} letters; names have {LONGEST_NAME} at most"
                )
            if found.isreg() and end > length:
                raise DamagedTarError(f"it breaks off at byte {length}, inside a member that ends at {end}")
            if found.isreg() and not found.issparse():
                yield Member(found.name, found.offset_data, found.size)
        if archive.offset + BLOCK > length:
            raise DamagedTarError(cut_off)
        file.seek(archive.offset)
        if any(file.read(BLOCK)):
            raise DamagedTarError(f"there is no tar header at byte {archive.offset}")
    except DamagedTarError:
        raise
    except Exception as error:  # damaged headers make tarfile raise nearly anything
        if file.tell() >= length:
            raise DamagedTarError(cut_off) from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DamagedTarError(f"there is no tar header before byte {file.tell()}: {reason}") from error
