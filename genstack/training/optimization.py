"""Optimizers: AdamW (arXiv:1711.05101) and Muon, with linear warm-up and cosine decay."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from genstack.compressor import Bottleneck, Compressor
from genstack.errors import UserError
from genstack.losses.alignment import Alignment
from genstack.losses.schedule import steps

MOMENTUM = 0.95  # of Muon
QUINTIC = (3.4445, -4.7750, 2.0315)  # coefficients of Muon's Newton-Schulz iteration
NARROW = 8  # maximum channels of images or a bottleneck, whose convolutions use AdamW


@dataclass(frozen=True)
class Optimization:
    """AdamW, or Muon and AdamW, with linear warm-up and cosine decay.

    Args:
        learning_rate: peak learning rate; it is not scaled by the batch size.
        betas: decay rates of the moments of AdamW.
        weight_decay: weight decay of matrices and kernels; biases, norms, embeddings and codebooks have none.
        warmup: warm-up from learning rate 0, in optimizer steps or as a share of the run like "5%".
        final: learning rate at the end, as a share of the peak; 1 for no decay.
        muon: peak learning rate of Muon (arXiv:2502.16982) for the matrices of transformer layers and the
            kernels of compressors; other weights use AdamW. null for AdamW only.
        discriminator: peak learning rate of the discriminator; null for that of the compressor.
    """

    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    warmup: int | str = "2%"
    final: float = 0.1
    muon: float | None = None
    discriminator: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"learning_rate {self.learning_rate} is out of range; it must be above 0")
        for name in ("muon", "discriminator"):
            rate = getattr(self, name)
            if rate is not None and not 0 < rate < math.inf:
                raise UserError(f"{name} {rate} is out of range; it must be above 0, or null")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"weight_decay {self.weight_decay} is out of range; it must be at least 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"betas {self.betas} are out of range; both must be at least 0 and below 1")
        if not 0 <= self.final <= 1:
            raise UserError(f"final {self.final} is out of range; it must be a share between 0 and 1")
        steps(self.warmup, 1)

    def factor(self, step: int, total: int) -> float:
        """Return the learning rate at a step of a run of `total` steps, as a share of the peak."""
        warmup = steps(self.warmup, total)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))

    def optimizer(self, networks: Sequence[nn.Module], total: int) -> tuple[AdamW, LambdaLR]:
        """Build one optimizer for all networks, and its schedule.

        Parameter groups separate networks, weights with and without decay, sharded weights, and Muon. Each
        group names its network by number, so that gradients are clipped per network: 0 is the model, others
        are its discriminator and its alignment.
        """
        by_muon = (
            [] if self.muon is None else [each for network in networks for each in layer_matrices(network)]
        )
        matrices = {id(each) for each in by_muon}
        groups = [
            {
                "params": members,
                "weight_decay": weight_decay,
                "network": number,
                "muon": muon,
                "lr": self.muon if muon else self.rate(number, network),
            }
            for number, network in enumerate(networks)
            for both, weight_decay in zip(split_by_decay(network), (self.weight_decay, 0.0), strict=True)
            for part in split_by_sharding(both)
            for muon in (True, False)
            if (members := [each for each in part if (id(each) in matrices) is muon])
        ]
        optimizer = MuonAdamW(groups, lr=self.learning_rate, betas=self.betas)
        return optimizer, LambdaLR(optimizer, lambda step: self.factor(step, total))

    def rate(self, number: int, network: nn.Module) -> float:
        """Peak learning rate of AdamW for a network of `optimizer`."""
        discriminator = number > 0 and not isinstance(network, Alignment)
        return (self.discriminator if discriminator else None) or self.learning_rate


class MuonAdamW(AdamW):
    """AdamW, and Muon for groups with `muon` set (arXiv:2502.16982, section 2.2).

    Muon updates a matrix by its momentum with equalized singular values. The kernel of a convolution counts
    as a matrix with one row per output channel.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()  # it clips the gradients of all groups, so it runs before they are split
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["muon"]]
        try:
            super().step()
        finally:
            self.param_groups = groups
        for group in groups:
            if group["muon"]:
                for matrix in group["params"]:
                    if matrix.grad is not None:
                        self.update_matrix(matrix, group["lr"], group["weight_decay"])
        return loss

    def update_matrix(self, matrix: nn.Parameter, rate: float, weight_decay: float) -> None:
        """Apply one step of Muon with Nesterov momentum."""
        gradient = matrix.grad
        assert gradient is not None
        state = self.state[matrix]
        if not state:
            state["step"] = torch.tensor(0.0)  # AdamW expects it in every loaded state
            state["momentum"] = torch.zeros_like(gradient)
        state["step"] += 1
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        direction = gradient.lerp(state["momentum"], MOMENTUM)
        whole = direction.full_tensor() if isinstance(direction, DTensor) else direction
        update = orthogonalize(whole.flatten(1))
        size = 0.2 * math.sqrt(max(update.shape))
        update = update.view_as(whole).to(matrix.dtype)
        if isinstance(matrix, DTensor):
            update = distribute_tensor(update, matrix.device_mesh, matrix.placements)
        matrix.mul_(1 - rate * weight_decay).add_(update, alpha=-rate * size)


def orthogonalize(matrix: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """Approximate the nearest matrix with orthogonal rows or columns, in bfloat16."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalize(matrix.T).T
    a, b, c = QUINTIC
    near = matrix.bfloat16()
    near = near / near.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = near @ near.T
        near = torch.addmm(near, torch.addmm(gram, gram, gram, beta=b, alpha=c), near, beta=a)
    return near


def layer_matrices(network: nn.Module) -> list[nn.Parameter]:
    """List the weights of inner layers: no heads, embeddings, first or last convolutions, or codebooks."""
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    layers: list[nn.Module] = [
        each for members in lists for each in members.modules() if isinstance(each, nn.Linear)
    ]
    if isinstance(network, Compressor):
        layers += [
            each
            for each in network.modules()
            if isinstance(each, nn.Conv2d) and min(each.weight.shape[:2]) > NARROW and each.groups == 1
        ]
    excluded = parameter_ids(network, Bottleneck)
    weights = [layer.get_parameter("weight") for layer in dict.fromkeys(layers)]
    return [weight for weight in weights if weight.requires_grad and id(weight) not in excluded]


def split_by_decay(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split the trainable parameters of a network into two groups, with and without weight decay."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    decayed = {id(parameter) for parameter in parameters if parameter.ndim >= 2}
    decayed -= parameter_ids(network, nn.Embedding) | parameter_ids(network, Bottleneck)
    with_decay = [parameter for parameter in parameters if id(parameter) in decayed]
    return with_decay, [parameter for parameter in parameters if id(parameter) not in decayed]


def parameter_ids(network: nn.Module, kind: type) -> set[int]:
    """Return the ids of all parameters inside modules of a kind."""
    modules = [module for module in network.modules() if isinstance(module, kind)]
    return {id(parameter) for module in modules for parameter in module.parameters()}


def clip(optimizer: torch.optim.Optimizer, limit: float | None) -> float:
    """Clip the gradients of each network to a norm of `limit`; return the largest norm before clipping."""
    networks: dict[int, list[nn.Parameter]] = {}
    for group in optimizer.param_groups:
        networks.setdefault(group["network"], []).extend(group["params"])
    norms = [clip_network(members, limit or math.inf) for members in networks.values()]
    return float(torch.stack(norms).max())


def clip_network(parameters: list[nn.Parameter], limit: float) -> Tensor:
    """Clip the gradients of a network to a norm of `limit`; return the norm before clipping."""
    sharded, whole = split_by_sharding(parameters)
    if not sharded:
        return nn.utils.clip_grad_norm_(whole, limit)
    gradients = [[part.grad for part in parts if part.grad is not None] for parts in (sharded, whole)]
    norms = [get_total_norm(each) for each in gradients if each]
    norm = torch.stack([each.full_tensor() if isinstance(each, DTensor) else each for each in norms]).norm()
    for parts in (sharded, whole):
        clip_grads_with_norm_(parts, limit, norm)
    return norm


def split_by_sharding(parameters: list[nn.Parameter]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split parameters into sharded and replicated ones."""
    sharded: list[nn.Parameter] = [parameter for parameter in parameters if isinstance(parameter, DTensor)]
    return sharded, [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
