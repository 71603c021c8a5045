"""What a report cannot show, and why."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from genstack.errors import UserError

Found = TypeVar("Found")


@dataclass(frozen=True)
class Absent:
    """Something that there is not; false where a condition asks.

    Args:
        reason: in a sentence.
    """

    reason: str

    def __bool__(self) -> bool:
        return False


def attempt(find: Callable[[], Found]) -> Found | Absent:
    """What is found, or why it is not there."""
    try:
        return find()
    except (UserError, OSError) as error:
        return Absent(" ".join(str(error).split()))
