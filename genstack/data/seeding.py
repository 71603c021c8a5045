"""Seeds derived from several numbers, such as seed, epoch and index."""

from hashlib import blake2b


def mix(*numbers: int) -> int:
    """Derive a seed below 2**63 from numbers and their order."""
    return int.from_bytes(blake2b(repr(numbers).encode(), digest_size=8).digest()) >> 1
