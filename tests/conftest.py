"""What every test stands on: fixed seeds, few threads, a home of its own; no network by pyproject.toml."""

import os

import pytest
import torch

os.environ["WANDB_MODE"] = "offline"
os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "all"  # the command line turns them off for its users
torch.set_num_threads(1)  # as many processes as cores run tests; more threads would wait for each other


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test draws the same numbers, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever writes to a home folder or a cache writes to an empty one."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / ".cache"))
    for name in ("GENSTACK_WEIGHTS", "GENSTACK_TRACEBACK", "TORCH_HOME", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
