"""Expectations that laws share."""

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Part = TypeVar("Part")


@contextmanager
def refusal(pattern: str) -> Iterator[None]:
    """Expect a UserError of one line.

    Args:
        pattern: regular expression that its message must contain.
    """
    try:
        yield
    except ValueError as error:
        message = str(error)
        assert re.search(pattern, message), f"expected '{pattern}' in the message '{message}'"
        assert "\n" not in message, f"expected one line, got '{message}'"
    else:
        raise AssertionError(f"expected a UserError '{pattern}'")


def arguments(part: Any) -> dict[str, Any]:
    """The arguments that a part was built with, which it must keep under their names."""
    names = inspect.signature(type(part)).parameters
    missing = [name for name in names if not hasattr(part, name)]
    assert not missing, f"{type(part).__name__} does not keep its argument {', '.join(missing)}"
    return {name: getattr(part, name) for name in names}


def build(part: Callable[..., Part], **given: Any) -> Part:
    """Build a part, and check that it keeps every argument under its name."""
    made, bound = part(**given), inspect.signature(part).bind(**given)
    bound.apply_defaults()
    kept = arguments(made)
    for name, value in bound.arguments.items():
        assert kept[name] == value, f"{type(made).__name__}.{name} is {kept[name]!r}, expected {value!r}"
    return made
