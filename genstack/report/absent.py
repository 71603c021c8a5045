"""What a report cannot show, and why."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from genstack.errors import UserError

Found = TypeVar("Found")


@dataclass(frozen=True)
class Absent:
    """Something that there is not; false where a condition asks.

    Args:
        reason: in a sentence.
    """

    reason: str

    def __bool__(self) -> Literal[False]:
        return False


def attempt(find: Callable[..., Found], *parts: Any) -> Found | Absent:
    """What is found of some parts, or why it, or the first part that is missing, is not there."""
    missing = next((part for part in parts if isinstance(part, Absent)), None)
    if missing is not None:
        return missing
    try:
        return find(*parts)
    except (UserError, OSError) as error:
        return Absent(" ".join(str(error).split()))
