"""The exponential moving average of weights, the ones that get used (Polyak & Juditsky 1992)."""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import AveragedModel

from genstack.errors import UserError

Tensors = tuple[Tensor, ...] | list[Tensor]


def ema_model(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` that follows it by `update_parameters(model)`; buffers are copied as they are.

    After n updates the decay is `min(decay, (1 + n) / (10 + n))`, so that short runs are not held back by
    their random start.
    """
    if not 0 <= decay < 1:
        raise UserError(f"ema {decay} is out of range; it must be at least 0 (no averaging) and below 1")

    @torch.no_grad()
    def move(averages: Tensors, parameters: Tensors, count: Tensor | int) -> None:
        n = float(count)
        mine, theirs = ([own(tensor) for tensor in tensors] for tensors in (averages, parameters))
        torch._foreach_lerp_(mine, theirs, 1 - min(decay, (1 + n) / (10 + n)))

    average = AveragedModel(model, multi_avg_fn=move)
    average.requires_grad_(False)
    return average.eval()


def own(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds: all of it, unless it is cut among processes."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
