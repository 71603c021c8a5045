"""Which share of the work is this process's, as torchrun or SLURM's srun say; all of it without them."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from genstack.errors import UserError

#: Names of the environment: rank, number of processes, rank among those of one machine.
LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),  # of srun; sbatch alone starts one process
)


@dataclass(frozen=True)
class Process:
    """One of several processes that do the same work on different images.

    Args:
        rank: its number, from 0.
        count: how many there are.
        local: its number among those of one machine; says which accelerator is its own.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @classmethod
    def here(cls) -> "Process":
        """This process."""
        for names in LAUNCHERS:
            if names[0] in os.environ and names[1] in os.environ:
                told = [os.environ.get(name, "0") for name in names]
                if not all(word.isdigit() for word in told) or not int(told[0]) < int(told[1]):
                    said = ", ".join(f"{name}={word}" for name, word in zip(names, told, strict=True))
                    raise UserError(f"the environment says {said}; the rank must be below the number")
                rank, count, local = map(int, told)
                return cls(rank, count, local)
        return cls()

    def share(self, indices: Iterable[int]) -> list[int]:
        """The images that this process draws: whatever is missing, no other process draws them."""
        return [index for index in indices if index % self.count == self.rank]


def warning_of_restarts() -> str:
    """What to tell where torchrun may restart processes, but keeps one store of addresses for all attempts.

    New processes then read the addresses of dead ones, and wait for these. Only torchrun's rendezvous c10d
    can do otherwise, where a variable says so; static, which is its default, cannot.
    """
    told = os.environ.get
    restarts, alone = told("TORCHELASTIC_MAX_RESTARTS", "0"), told("WORLD_SIZE", "1") == "1"
    if restarts == "0" or alone or told("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return ""
    return (
        f"warning: a restart by torchrun (--max-restarts {restarts}) may wait for dead processes; start it "
        "with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 and --standalone, or with --rdzv-backend c10d where there "
        "are several machines"
    )
