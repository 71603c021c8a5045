"""How weights move: AdamW, Muon for matrices of layers, linear warm-up, cosine decay (arXiv:1711.05101)."""

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
from genstack.losses.schedule import steps


@dataclass(frozen=True)
class Optimization:
    """AdamW, or Muon and AdamW, with linear warm-up and cosine decay.

    Args:
        learning_rate: the highest learning rate, as it is; nothing multiplies it.
        betas: decay of the running means of gradients and of their squares.
        weight_decay: of matrices and kernels; biases, norms, embeddings and codebooks have none.
        warmup: optimizer steps, or share of the run like "5%", in which the rate rises from 0.
        final: share of the highest rate that is left at the end of the run; 1 for no decay.
        muon: the highest learning rate of the matrices of transformer layers and the kernels of compressors,
            which then learn by Muon (arXiv:2502.16982); all else learns by AdamW. null: AdamW for all.
        discriminator: the highest learning rate of a discriminator; null: that of all else.
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
        """Share of the highest rate at this step of a run of so many."""
        warmup = steps(self.warmup, total)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))

    def optimizer(self, networks: Sequence[nn.Module], total: int) -> tuple[AdamW, LambdaLR]:
        """One optimizer for all networks, and its schedule; each has two groups, with and without decay.

        The first network is the model, a second one its discriminator.

        Groups carry the number of their network as "network", so that each is clipped by its own norm.
        Weights that are cut among processes have groups of their own, and so have those that learn by Muon.
        """
        by_muon = (
            [] if self.muon is None else [each for network in networks for each in layer_matrices(network)]
        )
        matrices = {id(each) for each in by_muon}
        rates = (self.learning_rate, self.discriminator or self.learning_rate)
        groups = [
            {
                "params": members,
                "weight_decay": weight_decay,
                "network": number,
                "muon": muon,
                "lr": self.muon if muon else rates[min(number, 1)],
            }
            for number, network in enumerate(networks)
            for both, weight_decay in zip(decayed(network), (self.weight_decay, 0.0), strict=True)
            for part in sharded_and_whole(both)
            for muon in (True, False)
            if (members := [each for each in part if (id(each) in matrices) is muon])
        ]
        optimizer = MuonAdamW(groups, lr=self.learning_rate, betas=self.betas)
        return optimizer, LambdaLR(optimizer, lambda step: self.factor(step, total))


class MuonAdamW(AdamW):
    """AdamW, and Muon for the groups that say so (arXiv:2502.16982, section 2.2).

    Muon moves a matrix along its momentum, whose singular values it makes alike. The kernel of a convolution
    is a matrix with a row for each channel that is written.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()  # before groups are set apart, since it clips the gradients of all
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
                        self.move(matrix, group["lr"], group["weight_decay"])
        return loss

    def move(self, matrix: nn.Parameter, rate: float, weight_decay: float) -> None:
        """One step of Muon, with Nesterov's momentum."""
        gradient = matrix.grad
        assert gradient is not None
        state = self.state[matrix]
        if not state:
            state["step"] = torch.tensor(0.0)  # AdamW looks for it in whatever state it loads
            state["momentum"] = torch.zeros_like(gradient)
        state["step"] += 1
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        direction = gradient.lerp(state["momentum"], MOMENTUM)
        whole = direction.full_tensor() if isinstance(direction, DTensor) else direction
        update = orthogonal(whole.flatten(1))
        size = 0.2 * math.sqrt(max(update.shape))
        update = update.view_as(whole).to(matrix.dtype)
        if isinstance(matrix, DTensor):
            update = distribute_tensor(update, matrix.device_mesh, matrix.placements)
        matrix.mul_(1 - rate * weight_decay).add_(update, alpha=-rate * size)


MOMENTUM = 0.95  # of Muon
QUINTIC = (3.4445, -4.7750, 2.0315)  # of its Newton-Schulz iteration


def orthogonal(matrix: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """About the nearest matrix with orthogonal rows or columns, in bfloat16."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    a, b, c = QUINTIC
    near = matrix.bfloat16()
    near = near / near.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = near @ near.T
        near = torch.addmm(near, torch.addmm(gram, gram, gram, beta=b, alpha=c), near, beta=a)
    return near


def layer_matrices(network: nn.Module) -> list[nn.Parameter]:
    """Weights of layers between the first and the last: no heads, no embeddings, no pixels, no codes."""
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
    spared = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, Bottleneck)
        for parameter in module.parameters()
    }
    weights = [layer.get_parameter("weight") for layer in dict.fromkeys(layers)]
    return [weight for weight in weights if weight.requires_grad and id(weight) not in spared]


NARROW = 8  # channels of pixels or of a bottleneck, at most


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
    cut, whole = sharded_and_whole(parameters)
    if not cut:
        return nn.utils.clip_grad_norm_(whole, limit)
    gradients = [[part.grad for part in parts if part.grad is not None] for parts in (cut, whole)]
    norms = [get_total_norm(each) for each in gradients if each]
    norm = torch.stack([each.full_tensor() if isinstance(each, DTensor) else each for each in norms]).norm()
    for parts in (cut, whole):
        clip_grads_with_norm_(parts, limit, norm)
    return norm


def sharded_and_whole(parameters: list[nn.Parameter]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split parameters into sharded ones and those that each process holds whole."""
    cut: list[nn.Parameter] = [parameter for parameter in parameters if isinstance(parameter, DTensor)]
    return cut, [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
