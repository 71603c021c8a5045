"""Optimizer steps given as a number or as a share of the run ("30%")."""

from math import isfinite

from genstack.errors import UserError


def steps(amount: int | str, total: int) -> int:
    """Convert `amount` to optimizer steps.

    Args:
        amount: steps (`500`), or a share of the run (`"30%"`).
        total: optimizer steps of the run; below 1 for an endless run.
    """
    share = percentage(amount)
    if share is None:
        return int(amount)
    if total < 1:
        raise UserError(f"invalid {amount} of an endless run; give a number of steps, or set max_steps")
    return round(share / 100 * total)


def percentage(amount: int | str) -> float | None:
    """Return the number before the percent sign; None for a number of steps."""
    text = str(amount).strip()
    try:
        number = float(text.removesuffix("%")) if text.endswith("%") else int(text)
    except ValueError:
        number = -1
    if number < 0 or not isfinite(number) or (text.endswith("%") and number > 100):
        raise UserError(
            f'invalid {amount}; expected a number of steps or a share of the run, such as 500 or "30%"'
        )
    return float(number) if text.endswith("%") else None
