"""Check weights of loss terms."""

from math import isfinite

from genstack.errors import UserError


def check_weight(weight: float) -> None:
    """Raise a UserError for negative and infinite weights."""
    if not (isfinite(weight) and weight >= 0):
        raise UserError(f"weight {weight} is out of range; it must be finite and at least 0")
