"""Check of a quantizer's arguments."""

from genstack.errors import UserError


def check(name: str, value: int | float | None, valid: bool, limit: str) -> None:
    """Raise a UserError unless a value is valid."""
    if not valid:
        raise UserError(f"{name} {value} is out of range; use {limit}")
