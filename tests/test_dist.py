"""Shares of the work: together they are all of it, and no two of them meet."""

from itertools import chain

import pytest
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

from genstack.dist import LAUNCHERS, Process, restart_warning


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in chain(*LAUNCHERS):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_cover_all_work(count):
    missing = [0, 1, 4, 5, 6, 9, 12]
    shares = [Process(rank, count).share(missing) for rank in range(count)]
    assert sorted(chain(*shares)) == missing
    whole = [Process(rank, count).share(range(13)) for rank in range(count)]
    assert all(set(part) <= set(full) for part, full in zip(shares, whole, strict=True))


@pytest.mark.parametrize(
    ("said", "process"),
    [
        ({}, Process(0, 1, 0)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Process(5, 8, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Process(1, 2, 0)),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1"}, Process(3, 4, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, Process(0, 1, 0)),  # a script of sbatch, without srun
    ],
)
def test_launcher_variables_are_read(monkeypatch, said, process):
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert Process.from_environment() == process


@pytest.mark.parametrize("said", [("2", "2"), ("x", "2")])
def test_invalid_environment_is_rejected(monkeypatch, said):
    for name, value in zip(("RANK", "WORLD_SIZE"), said, strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"RANK={said[0]}, WORLD_SIZE=2"):
        Process.from_environment()


@pytest.mark.parametrize("disabled", ["0", "1"])
@pytest.mark.parametrize("backend", [StaticTCPRendezvous, DynamicRendezvousHandler])
@pytest.mark.parametrize(("restarts", "processes"), [("0", "2"), ("3", "2"), ("3", "1")])
def test_hanging_restarts_are_reported(monkeypatch, disabled, backend, restarts, processes):
    """Torch's rendezvous says itself whether the agent's store is shared by all attempts."""
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", disabled)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", str(backend.use_agent_store.fget(None)))
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", restarts)
    monkeypatch.setenv("WORLD_SIZE", processes)
    told = restart_warning()
    safe = backend is DynamicRendezvousHandler and disabled == "1"
    assert bool(told) == (not safe and restarts == "3" and processes == "2")
    assert not told or ("--standalone" in told and "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in told)


def test_no_restart_warning_without_torchrun(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_MAX_RESTARTS", raising=False)
    assert restart_warning() == ""
