"""One seed from several numbers, so that chance is a function of what it is for (seed, epoch, index)."""

from hashlib import blake2b


def mix(*numbers: int) -> int:
    """A seed below 2**63 that depends on every number and on their order."""
    return int.from_bytes(blake2b(repr(numbers).encode(), digest_size=8).digest()) >> 1
