"""Memory estimates: doubling batches, and extrapolation."""

from pathlib import Path

import pytest
import torch
from torch import nn

from genstack.training.estimate import (
    Estimate,
    Memory,
    extrapolate,
    kilobytes,
    machine_memory,
    resident_peak,
)
from genstack.training.run import Schedule
from genstack.training.sharding import sharding_savings
from genstack.training.training import Training


class Ones(Training):
    """A training that is never run."""

    def __init__(self, batch_size):
        nn.Module.__init__(self)
        self.data = type("Data", (), {"batch_size": batch_size})()

    def networks(self):
        return [nn.Identity()]


Ones.__abstractmethods__ = frozenset()


def estimate(available, micro_batch, monkeypatch):
    """The memory of a training that takes 100 bytes and 10 for each image, and the batches that were run."""
    ran = []

    def peak(self, size):
        ran.append(size)
        return 100 + 10 * size

    monkeypatch.setattr(Estimate, "peak", peak)
    monkeypatch.setattr(Estimate, "available", available)
    return Estimate(Ones(micro_batch), Schedule(accelerator="cpu", devices=1)).memory(), ran


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 96])
def test_real_batch_is_measured_if_it_fits(monkeypatch, micro_batch):
    memory, ran = estimate(2000, micro_batch, monkeypatch)
    assert memory.measured and memory.fits and memory.needed == 100 + 10 * micro_batch
    assert ran == [size for size in (1, 2, 3, 4, 8, 16, 32, 64, 96) if size in ran] and ran[-1] == micro_batch


def test_oversized_batches_are_not_run(monkeypatch):
    memory, ran = estimate(300, 96, monkeypatch)
    assert ran == [2, 4, 8, 16]
    assert not memory.measured and not memory.fits and memory.needed == 1060


def test_extrapolate_is_linear():
    assert extrapolate({2: 30, 4: 50}, 10) == 110
    assert extrapolate({2: 30, 4: 30}, 10) == 30, "a peak at the start hides those of small batches"
    assert extrapolate({2: 30, 4: 50}, 4) == 50


def test_sharding_savings():
    """Weights, average, gradients and two moments of three equal layers and a head."""
    layers = nn.ModuleList(nn.Linear(50, 50, bias=False) for _ in range(3))
    model = nn.ModuleDict({"layers": layers, "head": nn.Linear(50, 20, bias=False)})
    layer, head = 4 * 50 * 50, 4 * 50 * 20
    whole, gathered = 5 * (3 * layer + head), 4 * layer + 2 * head
    assert sharding_savings(model, 1) == 0
    assert sharding_savings(model, 4) == (whole - gathered) * 3 // 4


def test_memory_fits():
    assert Memory(3, 3, "it", True).fits and not Memory(4, 3, "it", True).fits


@pytest.mark.slow
def test_resident_peak_grows_with_allocations():
    """A little more than the peak before is allocated; on systems without /proc, as much again."""
    before, status, more = resident_peak(), Path("/proc/self/status"), 64 * 2**20
    free = before - kilobytes(status, "VmRSS") * 1024 if status.exists() else before
    held = torch.ones((free + more) // 4)
    assert resident_peak() - before > 0.5 * more and machine_memory() > held.nbytes
