"""Offsets of the members of a tar file, found by Python's tarfile.

The file is not trusted: nothing is unpacked, names are not used as paths, and reads are no longer than a
header.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase

BLOCK = 512
LONGEST_NAME = 1024
LONGEST_HEADER = 2**16  # bytes of a long name or pax header


class DamagedTarError(Exception):
    """A tar file that is damaged or cut off; the members read before are complete."""


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in a tar file: its name, and offset and size of its content."""

    name: str
    start: int
    size: int


class HeaderReader:
    """A tar file whose reads are limited to the length of a header."""

    def __init__(self, file: BufferedIOBase):
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        """The next bytes."""
        if not 0 <= size <= LONGEST_HEADER:
            raise DamagedTarError(f"a name or header has {size} bytes, more than {LONGEST_HEADER}")
        return self.file.read(size)


def members(file: BufferedIOBase, length: int, links: list[str] | None = None) -> Iterator[Member]:
    """Yield the regular files in a tar file of this length, in order.

    Args:
        file: the tar file.
        length: its bytes.
        links: list to which the names of links and sparse files are added.

    Raises:
        DamagedTarError: after the last complete member, if the file has no valid end.
    """
    cut_off = f"it breaks off at byte {length}, before the end of the archive"
    try:
        file.seek(0)
        archive = tarfile.TarFile(fileobj=HeaderReader(file), encoding="utf-8", errors="replace")  # type: ignore[arg-type]
        while (found := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all members
            end = found.offset_data + found.size
            if found.size < 0 or len(found.name) > LONGEST_NAME:
                raise DamagedTarError(
                    f"the header before byte {found.offset_data} has a size of {found.size} and a name of "
                    f"{len(found.name)} letters; the longest name has {LONGEST_NAME}"
                )
            if found.isreg() and end > length:
                raise DamagedTarError(f"it breaks off at byte {length}, inside a member that ends at {end}")
            if found.isreg() and not found.issparse():
                yield Member(found.name, found.offset_data, found.size)
            elif links is not None and (found.isreg() or found.issym() or found.islnk()):
                links.append(found.name)
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
