"""Weights cut among processes: each holds a part, and all of a layer only while it computes (FSDP2).

The cut is that of fully sharded data parallelism (Zhao et al. 2023, arXiv:2304.11277), as torch.distributed's
`fully_shard` makes it, parameter by parameter. Every member of a list of layers is gathered by itself; what
is left of a model is gathered once a step. Whole in every process stay what is small and used out of turn:
quantizers, whose codebooks move after the step, and the last layer, whose gradient adaptive weights look at.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from genstack.compressor import Bottleneck, Compressor
from genstack.dist import all_reduce_mean
from genstack.prior import Prior

Learner = TypeVar("Learner", bound=nn.Module)

#: What training calls of a model beside `forward`; weights are gathered for these.
CALLED = ("loss", "nats", "sample")


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Cut a model's parameters among the processes of a mesh, in place."""
    whole = set(kept_whole(model))
    for layer in layers(model):
        fully_shard(layer, mesh=mesh, ignored_params=whole)
    fully_shard(model, mesh=mesh, ignored_params=whole)
    for name in CALLED:
        if isinstance(model, Prior):
            register_fsdp_forward_method(model, name)


def kept_whole(model: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that are not cut."""
    for module in model.modules():
        if isinstance(module, Bottleneck):
            yield from module.parameters()
    if isinstance(model, Compressor):
        yield model.last_layer


def layers(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost members of lists of layers that are used by calling them."""
    for child in module.children():
        if isinstance(child, Bottleneck):
            continue
        if not isinstance(child, nn.ModuleList):
            yield from layers(child)
            continue
        for member in child:
            if isinstance(member, Prior | nn.ModuleList):
                yield from layers(member)
            elif is_called(member) and not isinstance(member, Bottleneck):
                yield member


def sharding_saves(model: nn.Module, processes: int) -> int:
    """Bytes that each process needs less in training when a model is cut, beside one that holds it whole.

    Of what is cut it holds a part: weights, average, gradients and both moments. What belongs to no layer is
    gathered for a whole step, and so are its gradients until they are shared out; of layers two are gathered
    at a time, and the gradients of one are there whole, and once more in the order in which they are sent.
    """
    whole = set(kept_whole(model))
    members = [size(layer, whole) for layer in layers(model)]
    everything, largest = size(model, whole), max(members, default=0)
    gathered = 2 * (everything - sum(members)) + 4 * largest
    return (5 * everything - gathered) * (processes - 1) // processes


def size(module: nn.Module, whole: set[nn.Parameter]) -> int:
    """Bytes of the parameters that are cut."""
    return sum(parameter.nbytes for parameter in module.parameters() if parameter not in whole)


def is_called(module: nn.Module) -> bool:
    """Whether a module with weights is used by calling it, which is when its weights are gathered."""
    return type(module).forward is not nn.Module.forward and any(True for _ in module.parameters())


def is_sharded(model: nn.Module) -> bool:
    """Whether a model's parameters are cut among processes."""
    return isinstance(model, FSDPModule)


def assembled(model: Learner, blank: Callable[[], Learner]) -> Learner | None:
    """A whole copy of a model that is cut, in main memory: in the first process, None in all others.

    Args:
        model: it; every process asks for it at once.
        blank: makes one like it, with any weights.
    """
    whole: dict[str, Tensor] = {}
    first = distributed.get_rank() == 0
    for name, tensor in model.state_dict().items():
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if first:
            whole[name] = full.detach().cpu()
    if not first:
        return None
    with torch.device("meta"):
        copy = blank()
    copy.load_state_dict(whole, assign=True)
    return copy.eval().requires_grad_(False)


def average_replicated(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of parameters that every process holds whole, in one operation."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    gradients = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    if gradients:
        flat = all_reduce_mean(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
