"""Fully sharded data parallelism (FSDP2; Zhao et al. 2023, arXiv:2304.11277), by torch's `fully_shard`.

Each layer in a list of layers is gathered by itself, and the rest of a model once per step. Quantizers, the
last layer and the one before the quantizer are replicated: codebooks are updated after the step, and
adaptive weights need the gradients of these layers.
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

#: Methods beside `forward` that training calls on a prior; weights are gathered for them.
METHODS = ("loss", "nats", "held_out_loss", "sample")


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shard a model's parameters over a mesh, in place."""
    whole = set(replicated(model))
    for layer in layers(model):
        fully_shard(layer, mesh=mesh, ignored_params=whole)
    fully_shard(model, mesh=mesh, ignored_params=whole)
    for module in model.modules():
        if isinstance(module, FSDPModule):  # a first use in inference mode would spoil its buffers for others
            module.unshard()
            module.reshard()
    for name in METHODS:
        if isinstance(model, Prior) and hasattr(model, name):
            register_fsdp_forward_method(model, name)


def replicated(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters that every process holds whole."""
    for module in model.modules():
        if isinstance(module, Bottleneck):
            yield from module.parameters()
    if isinstance(model, Compressor):
        yield model.last_layer
        if model.latent_layer is not None:
            yield model.latent_layer


def layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost layers in lists of layers."""
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


def sharding_savings(model: nn.Module, processes: int) -> int:
    """Return the bytes that sharding saves in each process.

    A process holds shards of weights, EMA weights, gradients and both moments. Gathered are parameters
    outside of layers and their gradients for a whole step, and two layers at a time with the gradients of one
    and a copy to communicate.
    """
    whole = set(replicated(model))
    members = [size(layer, whole) for layer in layers(model)]
    everything, largest = size(model, whole), max(members, default=0)
    gathered = 2 * (everything - sum(members)) + 4 * largest
    return (5 * everything - gathered) * (processes - 1) // processes


def size(module: nn.Module, whole: set[nn.Parameter]) -> int:
    """Return the bytes of the sharded parameters."""
    return sum(parameter.nbytes for parameter in module.parameters() if parameter not in whole)


def is_called(module: nn.Module) -> bool:
    """Return True for modules with weights and a `forward`, which gathers them."""
    return type(module).forward is not nn.Module.forward and any(True for _ in module.parameters())


def is_sharded(model: nn.Module) -> bool:
    """Return True if a model's parameters are sharded."""
    return isinstance(model, FSDPModule)


def gather_model(model: Learner, new_model: Callable[[], Learner]) -> Learner | None:
    """Gather a sharded model in the main memory of rank 0; other ranks get None.

    Args:
        model: the sharded model; all processes call this together.
        new_model: builds a model of the same architecture, with any weights.
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
        copy = new_model()
    copy.load_state_dict(whole, assign=True)
    return copy.eval().requires_grad_(False)


def average_replicated(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of replicated parameters in one operation."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    gradients = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    if gradients:
        flat = all_reduce_mean(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
