"""Limits on the size of a described model, by the size of the file that describes it."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from genstack.errors import UserError

EXTRA_BYTES = 2**28  # of a model besides its weights, such as positions and masks
EXTRA_PARAMETERS = 1000  # created while building, such as layers that are replaced


@contextmanager
def at_most(tensors: int) -> Iterator[None]:
    """Stop building a model that has more parameters than a file has tensors."""
    count = 0

    def check(*_: object) -> None:
        nonlocal count
        count += 1
        if count > 2 * tensors + EXTRA_PARAMETERS:
            raise UserError(f"it describes over {count - 1} parameters, but has {tensors} tensors")

    handle = register_module_parameter_registration_hook(check)
    try:
        yield
    finally:
        handle.remove()


def check_size(modules: nn.Module, weights: int) -> None:
    """Reject modules that need far more memory than their weights have bytes."""
    needed = sum(tensor.nbytes for tensor in chain(modules.parameters(), modules.buffers()))
    if needed > 2 * weights + EXTRA_BYTES:
        raise UserError(f"it describes a model of {needed} bytes, but has {weights} bytes of weights")
