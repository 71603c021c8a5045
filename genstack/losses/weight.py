"""How much a term counts in the training loss."""

from math import isfinite

from genstack.errors import UserError


def check_weight(weight: float) -> None:
    """Refuse weights that no loss can have."""
    if not (isfinite(weight) and weight >= 0):
        raise UserError(
            f"weight {weight} is out of range; it must be finite and at least 0 (0 takes the term away)"
        )
