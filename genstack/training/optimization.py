"""How weights move: AdamW, linear warm-up, cosine decay (Loshchilov & Hutter 2017, arXiv:1711.05101)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from genstack.compressor import Bottleneck
from genstack.errors import UserError
from genstack.losses.schedule import steps


@dataclass(frozen=True)
class Optimization:
    """AdamW with linear warm-up and cosine decay.

    Args:
        learning_rate: the highest learning rate, as it is; nothing multiplies it.
        betas: decay of the running means of gradients and of their squares.
        weight_decay: of matrices and kernels; biases, norms, embeddings and codebooks have none.
        warmup: optimizer steps, or share of the run like "5%", in which the rate rises from 0.
        final: share of the highest rate that is left at the end of the run; 1 for no decay.
    """

    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    warmup: int | str = "2%"
    final: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"learning_rate {self.learning_rate} is out of range; it must be above 0")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"weight_decay {self.weight_decay} is out of range; it must be at least 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"betas {self.betas} are out of range; both must be at least 0 and below 1")
        if not 0 <= self.final <= 1:
            raise UserError(f"final {self.final} is out of range; it must be a share between 0 and 1")
        steps(self.warmup, 1)

    def factor(self, step: int, total: int) -> float:
        """Share of the highest rate at this step of a run of so many."""
        warmup = steps(self.warmup, total)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))

    def optimizer(self, networks: Sequence[nn.Module], total: int) -> tuple[AdamW, LambdaLR]:
        """One optimizer for all networks, and its schedule; each has two groups, with and without decay.

        Groups carry the number of their network as "network", so that each is clipped by its own norm.
        Weights that are cut among processes have groups of their own.
        """
        groups = [
            {"params": members, "weight_decay": weight_decay, "network": number}
            for number, network in enumerate(networks)
            for both, weight_decay in zip(decayed(network), (self.weight_decay, 0.0), strict=True)
            for members in cut_and_whole(both)
            if members
        ]
        optimizer = AdamW(groups, lr=self.learning_rate, betas=self.betas)
        return optimizer, LambdaLR(optimizer, lambda step: self.factor(step, total))


def decayed(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters of a network: those that weight decay pulls to 0, and the others."""
    tables = [module for module in network.modules() if isinstance(module, nn.Embedding | Bottleneck)]
    spared = {id(parameter) for table in tables for parameter in table.parameters()}
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    with_decay = [
        parameter for parameter in parameters if parameter.ndim >= 2 and id(parameter) not in spared
    ]
    without = [parameter for parameter in parameters if parameter.ndim < 2 or id(parameter) in spared]
    return with_decay, without


def clip(optimizer: torch.optim.Optimizer, limit: float | None) -> float:
    """Scale the gradients of each network to a norm of at most `limit`; the largest norm met before that."""
    networks: dict[int, list[nn.Parameter]] = {}
    for group in optimizer.param_groups:
        networks.setdefault(group["network"], []).extend(group["params"])
    norms = [clipped(members, limit or math.inf) for members in networks.values()]
    return float(torch.stack(norms).max())


def clipped(parameters: list[nn.Parameter], limit: float) -> Tensor:
    """Scale the gradients of a network to a norm of at most `limit`; the norm of all of them before that."""
    cut, whole = cut_and_whole(parameters)
    if not cut:
        return nn.utils.clip_grad_norm_(whole, limit)
    gradients = [[part.grad for part in parts if part.grad is not None] for parts in (cut, whole)]
    norms = [get_total_norm(each) for each in gradients if each]
    norm = torch.stack([each.full_tensor() if isinstance(each, DTensor) else each for each in norms]).norm()
    for parts in (cut, whole):
        clip_grads_with_norm_(parts, limit, norm)
    return norm


def cut_and_whole(parameters: list[nn.Parameter]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Those that are cut among processes, and those that each process holds."""
    cut: list[nn.Parameter] = [parameter for parameter in parameters if isinstance(parameter, DTensor)]
    return cut, [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
