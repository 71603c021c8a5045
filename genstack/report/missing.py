"""Parts of a report that cannot be shown, with the reason."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from genstack.errors import UserError

Found = TypeVar("Found")


@dataclass(frozen=True)
class Missing:
    """A missing part; false in a condition.

    Args:
        reason: reason in a sentence.
    """

    reason: str

    def __bool__(self) -> Literal[False]:
        return False


def attempt(compute: Callable[..., Found], *parts: Any) -> Found | Missing:
    """Compute something from parts; return the first missing part, or the error, if that is not possible."""
    missing = next((part for part in parts if isinstance(part, Missing)), None)
    if missing is not None:
        return missing
    try:
        return compute(*parts)
    except (UserError, OSError) as error:
        return Missing(" ".join(str(error).split()))
