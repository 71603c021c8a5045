"""Linear weights cast to the dtype of autocast once, and not again for every sampled code."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from genstack.transformer.head import TiedHead


@contextmanager
def cast_weights(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Under autocast, cast the weights of linear layers and heads to its dtype, and restore them on exit.

    Autocast caches its own casts only where gradients are recorded. Sharded weights are left alone.
    """
    if not torch.is_autocast_enabled(device.type):
        yield
        return
    dtype = torch.get_autocast_dtype(device.type)
    originals = [
        (layer, layer.weight)
        for layer in module.modules()
        if isinstance(layer, nn.Linear) and type(layer.weight) is nn.Parameter and layer.weight.dtype != dtype
    ]
    heads = [each for each in module.modules() if isinstance(each, TiedHead)]
    heads = [each for each in heads if type(each.table[0].weight) is nn.Parameter]
    try:
        for head in heads:
            head.cast = head.weight.detach().to(dtype)
        for layer, weight in originals:
            layer.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
        yield
    finally:
        for layer, weight in originals:
            layer.weight = weight
        for head in heads:
            head.cast = None
