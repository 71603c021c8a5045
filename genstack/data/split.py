"""Training and validation by a hash of each image's key, so that images added later move no others."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from genstack.errors import UserError


@dataclass(frozen=True)
class Split:
    """Numbers of the images on either side, in the order of the source."""

    training: tuple[int, ...]
    validation: tuple[int, ...]


def split(keys: Sequence[str], share: float) -> Split:
    """Lay aside about `share` of the images; with two or more, each side has at least one.

    A single image is on both sides, with a warning.
    """
    if not 0 <= share < 1:
        raise UserError(
            f"validation {share} is out of range; give the share of images to lay aside, such as 0.05"
        )
    places = [place(key) for key in keys]
    if len(places) == 1:
        warnings.warn("there is one image only: it is trained on and validated on", stacklevel=2)
        return Split((0,), (0,))
    order = sorted(range(len(places)), key=places.__getitem__)
    count = sum(value < share for value in places)
    aside = set(order[: min(max(count, 1), len(order) - 1)])
    numbers = range(len(places))
    return Split(tuple(i for i in numbers if i not in aside), tuple(i for i in numbers if i in aside))


def place(key: str) -> float:
    """Where a key lies in [0, 1)."""
    return (
        int.from_bytes(blake2b(key.encode(errors="surrogateescape"), digest_size=8).digest()) >> 11
    ) / 2**53
