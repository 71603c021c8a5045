"""Distributed processes: rank and world size, and collective operations.

Without a process group, the operations return their input.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed.nn.functional as differentiable
from jaxtyping import Float, Num, Shaped
from torch import Tensor, distributed
from torch.nn.functional import pad

from genstack.errors import UserError

T = TypeVar("T")

#: Environment variables of torchrun and srun: rank, number of processes, rank within the machine.
LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),  # of srun; sbatch alone starts one process
)


@dataclass(frozen=True)
class Process:
    """One of several processes; `local_rank` is its rank on its machine, which selects the accelerator."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> "Process":
        """Read the environment variables of the launcher; rank 0 of 1 without one."""
        for names in LAUNCHERS:
            if names[0] in os.environ and names[1] in os.environ:
                values = [os.environ.get(name, "0") for name in names]
                if not all(value.isdigit() for value in values) or not int(values[0]) < int(values[1]):
                    found = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
                    raise UserError(f"invalid environment {found}; the rank must be below the world size")
                return cls(*map(int, values))
        return cls()

    def share(self, indices: Iterable[int]) -> list[int]:
        """Select the indices of this process, independent of which other indices are given."""
        return [index for index in indices if index % self.world_size == self.rank]


def is_distributed() -> bool:
    """Return True in a process group of at least two processes."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


@contextmanager
def gloo_group(rank: int, world_size: int) -> Iterator[None]:
    """Initialize a process group on the CPU with torchrun's addresses; not for a single process."""
    if world_size == 1:
        yield
        return
    if "MASTER_ADDR" not in os.environ:
        raise UserError(f"MASTER_ADDR is not set for {world_size} processes; start them with torchrun")
    distributed.init_process_group("gloo", rank=rank, world_size=world_size)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def all_reduce_sum(values: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
    """Sum over all processes, in place."""
    if is_distributed():
        distributed.all_reduce(values)
    return values


def all_reduce_mean(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Mean over all processes, in place."""
    if is_distributed():
        distributed.all_reduce(values)
        values /= distributed.get_world_size()
    return values


def differentiable_mean(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Mean over all processes, with gradients, so that their batches count as one."""
    if not is_distributed():
        return values
    return differentiable.all_reduce(values) / distributed.get_world_size()


def broadcast(values: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Broadcast the values of rank 0, in place."""
    if is_distributed():
        distributed.broadcast(values, src=0)
    return values


def gather_rows(rows: Num[Tensor, "b n"]) -> Num[Tensor, "total n"]:
    """Gather rows of all processes, whose numbers may differ; values must not be negative."""
    if not is_distributed():
        return rows
    most = torch.tensor(len(rows), device=rows.device)
    distributed.all_reduce(most, distributed.ReduceOp.MAX)
    rows = pad(rows, (0, 0, 0, int(most) - len(rows)), value=-1)
    gathered = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
    distributed.all_gather(gathered, rows)
    everything = torch.cat(gathered)
    return everything[everything[:, 0] >= 0]


def gather_objects(value: T) -> list[T]:
    """Gather the value of each process, by rank, with pickle."""
    if not is_distributed():
        return [value]
    values = [value] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def restart_warning() -> str:
    """Warn if a restart by torchrun may hang; "" otherwise.

    Torchrun shares one store of addresses between attempts, so new processes may wait for dead ones. The
    rendezvous c10d can avoid that by an environment variable; static, the default, cannot.
    """
    variable = os.environ.get
    restarts, alone = variable("TORCHELASTIC_MAX_RESTARTS", "0"), variable("WORLD_SIZE", "1") == "1"
    if restarts == "0" or alone or variable("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return ""
    return (
        f"warning: a restart by torchrun (--max-restarts {restarts}) may wait for dead processes; start it "
        "with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 and --standalone, or with --rdzv-backend c10d on several "
        "machines"
    )
