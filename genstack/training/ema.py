"""Exponential moving average (EMA) of weights (Polyak & Juditsky 1992)."""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import AveragedModel

from genstack.errors import UserError

Tensors = tuple[Tensor, ...] | list[Tensor]


def ema_model(model: nn.Module, decay: float) -> AveragedModel:
    """Return an averaged copy of `model`, updated by `update_parameters(model)`; buffers are copied.

    After n updates the decay is `min(decay, (1 + n) / (10 + n))`: short runs forget their random start.
    """
    if not 0 <= decay < 1:
        raise UserError(f"ema {decay} is out of range; it must be at least 0 (no averaging) and below 1")

    @torch.no_grad()
    def update(averages: Tensors, parameters: Tensors, count: Tensor | int) -> None:
        n = float(count)
        averages, parameters = ([local(each) for each in tensors] for tensors in (averages, parameters))
        torch._foreach_lerp_(averages, parameters, 1 - min(decay, (1 + n) / (10 + n)))

    average = AveragedModel(model, multi_avg_fn=update)
    average.requires_grad_(False)
    return average.eval()


def local(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor, or a whole tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
