"""Number of threads: measured, kept by a run, or set by the user."""

import pytest
import torch
from torch import nn

from genstack.training import threads
from genstack.training.run import Run, Schedule
from genstack.training.threads import fastest, set_threads
from genstack.training.training import Training

CPU = Schedule(accelerator="cpu", devices=1)


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Untrained(Training):
    """A training that is never run."""

    def __init__(self):
        nn.Module.__init__(self)


Untrained.__abstractmethods__ = frozenset()


def measured(monkeypatch, seconds):
    """Let a step take so many seconds by the number of threads."""

    class Fake:
        micro_batch = 2

        def __init__(self, training, schedule):
            assert training is not original

        def steps(self, count, micro_batch):
            return [99.0] * (count - 1) + [seconds[torch.get_num_threads()]]

    original = Untrained()
    monkeypatch.setattr(threads, "Estimate", Fake)
    return original


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [({1: 2.0, 2: 1.1, 3: 1.0}, 3), ({1: 2.0, 2: 1.01, 3: 1.0}, 2), ({1: 1.0, 2: 1.5, 3: 9.0}, 1)],
)
def test_fewest_fast_threads_are_chosen(monkeypatch, seconds, expected):
    assert fastest(measured(monkeypatch, seconds), CPU, 3) == expected


def test_one_core_is_not_measured(monkeypatch):
    assert fastest(measured(monkeypatch, {}), CPU, 1) == 1


def test_precedence_of_thread_counts(monkeypatch, tmp_path):
    training = measured(monkeypatch, {1: 1.0, 2: 0.5, 3: 0.4})
    torch.set_num_threads(3)
    run = Run(tmp_path)
    assert set_threads(training, CPU, run) == "3 threads (measured)"
    monkeypatch.setattr(Run, "checkpoint_content", lambda self: {"threads": 2})
    assert set_threads(training, CPU, run) == "2 threads (as before)"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert set_threads(training, CPU, run) == "2 threads (OMP_NUM_THREADS)"
    chosen = Schedule(accelerator="cpu", devices=1, threads=1)
    assert set_threads(training, chosen, run) == "1 thread (trainer.threads)"
    assert torch.get_num_threads() == 1


def test_several_processes_keep_the_launcher_threads(monkeypatch, tmp_path):
    torch.set_num_threads(2)
    assert set_threads(measured(monkeypatch, {}), Schedule(accelerator="cpu", devices=2), Run(tmp_path)) == ""
    assert torch.get_num_threads() == 2


@pytest.mark.slow
def test_measuring_does_not_change_the_training(monkeypatch, runs):
    """Weights and numbers of a run are those of one whose threads are set."""
    monkeypatch.setattr(threads, "TOLERANCE", 1e9)  # one thread, whatever was measured
    torch.set_num_threads(2)
    found = runs.train("compressor", "threads measured", "--trainer.max_steps", "2")
    torch.set_num_threads(1)
    given = runs.train("compressor", "threads given", "--trainer.max_steps", "2", "--trainer.threads", "1")
    assert torch.load(found / "checkpoints/last.ckpt", weights_only=True)["threads"] == 1
    one, other = ((folder / "model.safetensors").read_bytes() for folder in (found, given))
    assert one == other
