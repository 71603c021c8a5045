"""Limits on the size of described models: no larger than the file that holds the description."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from genstack.errors import UserError

#: Bytes that a model may have beside its weights: places, masks.
BESIDE = 2**28
#: Parameters that may be made beside those that are kept; layers that replace others.
SPARE = 1000


@contextmanager
def at_most(tensors: int) -> Iterator[None]:
    """Stop building once a model has more parameters than a file holds tensors, so that it ends at all."""
    made = 0

    def count(*_: object) -> None:
        nonlocal made
        made += 1
        if made > 2 * tensors + SPARE:
            raise UserError(f"it describes over {made - 1} parameters, and {tensors} tensors are there")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def check_size(modules: nn.Module, weights: int) -> None:
    """Refuse modules that need far more memory than the bytes of their weights."""
    needed = sum(tensor.nbytes for tensor in chain(modules.parameters(), modules.buffers()))
    if needed > 2 * weights + BESIDE:
        raise UserError(f"it describes a model of {needed} bytes, and {weights} bytes of weights are there")
