"""Weights held in the dtype of autocast, so that drawing does not convert them again for every code."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def held(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Under autocast, give the linear layers weights in its dtype meanwhile, with the values it would make.

    Autocast keeps what it converts only where gradients are recorded. Sharded weights are left as they are.
    """
    if not torch.is_autocast_enabled(device.type):
        yield
        return
    dtype = torch.get_autocast_dtype(device.type)
    kept = [
        (layer, layer.weight)
        for layer in module.modules()
        if isinstance(layer, nn.Linear) and type(layer.weight) is nn.Parameter and layer.weight.dtype != dtype
    ]
    try:
        for layer, weight in kept:
            layer.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
        yield
    finally:
        for layer, weight in kept:
            layer.weight = weight
