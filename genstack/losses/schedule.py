"""Moments of a run, given as a number of optimizer steps or as a share of the whole run ("30%")."""

from math import isfinite

from genstack.errors import UserError


def steps(amount: int | str, total: int) -> int:
    """The number of optimizer steps that `amount` stands for.

    Args:
        amount: steps (`500`), or a share of the run (`"30%"`).
        total: optimizer steps of the whole run; below 1 for a run without an end.
    """
    share = percentage(amount)
    if share is None:
        return int(amount)
    if total < 1:
        raise UserError(
            f"{amount} of a run without an end is unknown; give a number of steps, or set max_steps"
        )
    return round(share / 100 * total)


def percentage(amount: int | str) -> float | None:
    """The number before the percent sign; None for a number of steps.

    Raises:
        UserError: neither of the two; raised as soon as a config is read, long before the run is.
    """
    text = str(amount).strip()
    try:
        number = float(text.removesuffix("%")) if text.endswith("%") else int(text)
    except ValueError:
        number = -1
    if number < 0 or not isfinite(number) or (text.endswith("%") and number > 100):
        raise UserError(f'{amount} is neither a number of steps nor a share of the run; write 500 or "30%"')
    return float(number) if text.endswith("%") else None
