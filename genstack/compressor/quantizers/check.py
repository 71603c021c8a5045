"""Numbers that a user may get wrong."""

from genstack.errors import UserError


def check(name: str, value: int | float | None, kept: bool, limit: str) -> None:
    """Refuse a value that was not kept within its limit."""
    if not kept:
        raise UserError(f"{name} {value} is out of range; use {limit}")
