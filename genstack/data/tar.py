"""Places of the members of a tar file (POSIX.1-2001 ustar and pax, GNU long names).

The file may come from a stranger. Nothing is unpacked, no name is used as a path, and what is allocated is
bounded by constants and by the length of the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase

BLOCK = 512
LONGEST_NAME = 1024
LONGEST_EXTENSION = 2**16  # bytes of a pax header


class DamagedTarError(Exception):
    """Where and why a file stops being a tar file; members before are whole."""


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in a tar file: its name, and where its bytes lie."""

    name: str
    start: int
    size: int


def members(file: BufferedIOBase, length: int) -> Iterator[Member]:
    """The regular files in a tar file of this length, in order.

    Raises:
        DamagedTarError: after the last whole member, if the file does not end as tar files do.
    """
    place = 0
    name, size = "", -1  # as announced for the next member, where anything was
    while True:
        header = read(file, place, BLOCK, length)
        if not any(header):
            return
        check_sum(header, place)
        kind, start = header[156:157], place + BLOCK
        announcing = kind in (b"L", b"K", b"x", b"X", b"g")
        own = size if size >= 0 and not announcing else number(header[124:136], place)
        if kind in b"123456":  # links, devices and folders have no content, whatever they claim
            own = 0
        if start + own > length:
            raise DamagedTarError(
                f"it breaks off at byte {length}, inside a member that ends at {start + own}"
            )
        place = start + -(-own // BLOCK) * BLOCK
        if kind == b"L":
            name = text(read(file, start, bounded(own, LONGEST_NAME, start), length))
        elif kind in (b"x", b"X"):
            found = extensions(read(file, start, bounded(own, LONGEST_EXTENSION, start), length), start)
            name, size = found.get("path", name), number(found.get("size", "").encode(), start, base=10)
            if any(key.startswith("GNU.sparse") for key in found):
                name = "\0"  # its content is not laid out as it reads
        elif not announcing:
            if kind in (b"0", b"\0", b"7") and name != "\0":
                yield Member(name or ustar_name(header), start, own)
            name, size = "", -1


def read(file: BufferedIOBase, start: int, size: int, length: int) -> bytes:
    """Exactly so many bytes."""
    if start + size <= length:
        file.seek(start)
        data = file.read(size)
        if len(data) == size:
            return data
    raise DamagedTarError(f"it breaks off at byte {length}, before the end that a tar file has")


def bounded(size: int, limit: int, place: int) -> int:
    if size > limit:
        raise DamagedTarError(f"a name or header at byte {place} has {size} bytes, more than {limit}")
    return size


def check_sum(header: bytes, place: int) -> None:
    stated = number(header[148:156], place)
    if stated != sum(header[:148]) + sum(header[156:]) + 8 * ord(" "):
        raise DamagedTarError(f"there is no tar header at byte {place}")


def number(field: bytes, place: int, base: int = 8) -> int:
    """A number in a header: digits, or GNU's binary; -1 for a pax number that is not there."""
    if base == 8 and field[:1] == b"\x80":
        return int.from_bytes(field[1:])
    digits = field.strip(b" \0")
    if not digits:
        return -1 if base == 10 else 0
    if not digits.isdigit() or len(digits) > 20 or (base == 8 and not set(digits) <= set(b"01234567")):
        raise DamagedTarError(f"there is no number where the header at byte {place} has one")
    return int(digits, base)


def ustar_name(header: bytes) -> str:
    prefix = text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{text(header[:100])}" if prefix else text(header[:100])


def text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode(errors="replace")


def extensions(data: bytes, place: int) -> dict[str, str]:
    """The records of a pax header, each `length key=value` and a newline."""
    found: dict[str, str] = {}
    while data and data[0]:
        digits, _, _ = data[:20].partition(b" ")
        size = number(digits, place, base=10)
        record = data[len(digits) + 1 : size - 1]
        if not len(digits) + 2 < size <= len(data) or b"=" not in record:
            raise DamagedTarError(f"the pax header at byte {place} has no records")
        key, _, value = record.partition(b"=")
        found[text(key)] = text(value[:LONGEST_NAME])
        data = data[size:]
    return found
