"""Expectations that laws share."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn

from genstack.errors import UserError

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


def one_line_or_works(action: Callable[[], Any]) -> None:
    """Expect that an action succeeds, or raises a UserError of one line."""
    try:
        action()
    except UserError as error:
        assert "\n" not in str(error), f"expected one line, got '{error}'"


def gradients_flow(tensors: Mapping[str, Tensor]) -> None:
    """Expect finite gradients that are not zero, of tensors by name."""
    for name, tensor in tensors.items():
        assert tensor.grad is not None, f"{name} has no gradient"
        assert tensor.grad.isfinite().all(), f"{name} has a gradient that is not finite"
        assert tensor.grad.any(), f"{name} has a gradient of zeros"


def check_frozen(network: nn.Module) -> None:
    """Expect weights in memory that do not train, and eval mode."""
    assert not any(parameter.requires_grad for parameter in network.parameters()), "weights must not train"
    assert not any(part.training for part in network.modules()), "the network must be in eval mode"
    assert not any(tensor.is_meta for tensor in network.state_dict().values()), "weights are missing"


def check_config(config: Any) -> None:
    """Expect a frozen dataclass: equal arguments make equal configs."""
    again = type(config)(**arguments(config))
    assert config == again and hash(config) == hash(again)
