"""What is foretold of memory: storages that live, counted once, and let go."""

import pytest
import torch
from torch import nn

from genstack.training.estimate import Alive, Memory, peak_of, process_memory
from genstack.training.sharding import spared


def test_storages_are_counted_as_long_as_they_live():
    with Alive() as alive:
        one = torch.zeros(1000)
        assert alive.bytes == 4000
        other = one[::2].contiguous().reshape(2, -1).T  # a copy of half of it; views take nothing
        assert alive.bytes == 6000
        del one
        assert alive.bytes == 2000 and alive.peak == 6000
        del other
    assert alive.bytes == 0 and alive.peak == 6000


def test_what_was_there_before_is_counted_when_it_is_named():
    weight = torch.zeros(10, 10, requires_grad=True)
    with Alive() as alive:
        alive.add(weight)
        alive.add(weight)
        assert alive.bytes == 400
        (weight * 2).sum().backward()
        assert alive.bytes == 800, "the gradient stays"


def test_a_chain_of_products_keeps_what_its_gradient_needs():
    """n layers of b x d activations, each kept for the backward pass: the closed form, and a line in b."""

    def peak(batch: int) -> int:
        weights = [torch.zeros(50, 50, requires_grad=True) for _ in range(6)]
        with Alive() as alive:
            features = torch.zeros(batch, 50)
            for weight in weights:
                features = features @ weight
            kept = alive.bytes
            features.sum().backward()
        assert kept == 4 * 50 * batch * 7
        return alive.peak

    one, two, four = peak(100), peak(200), peak(400)
    assert four == pytest.approx(one + 3 * (two - one), rel=0.02)


def test_the_peak_of_a_large_batch_is_elsewhere_than_that_of_a_small_one():
    """Gradients of 40 kB a layer outweigh the activations of few images, and not those of many."""

    def counted(batch: int) -> Alive:
        weights = [torch.zeros(100, 100, requires_grad=True) for _ in range(30)]
        with Alive() as alive:
            for weight in weights:
                alive.add(weight)
            alive.begin_step()
            features = torch.zeros(batch, 100)
            for weight in weights:
                features = (features @ weight).relu() * 3
            features.sum().backward()
        return alive

    two, four, many = counted(2), counted(4), counted(400)
    assert two.peak == pytest.approx(four.peak, rel=0.03), "a line through these would lie flat"
    assert peak_of(400, (2, 4), two, four) == pytest.approx(many.peak, rel=0.02)
    assert many.peak > 3 * four.peak
    two.steps.append([9, 50, 1])
    four.steps.append([9, 200_000, 1, 1])  # another step of other operations: a line through its peaks
    assert peak_of(400, (2, 4), two, four) == pytest.approx(199_950 * 199, rel=0.01)
    assert peak_of(4, (4, 4), four, four) == four.peak


def test_what_lies_in_other_processes():
    """Weights, average, gradients and two moments of 3 equal layers and of what belongs to none of them."""
    layers = nn.ModuleList(nn.Linear(50, 50, bias=False) for _ in range(3))
    model = nn.ModuleDict({"layers": layers, "head": nn.Linear(50, 20, bias=False)})
    layer, head = 4 * 50 * 50, 4 * 50 * 20
    whole, gathered = 5 * (3 * layer + head), 4 * layer + 2 * head
    assert spared(model, 1) == 0
    assert spared(model, 4) == (whole - gathered) * 3 // 4


def test_whether_it_fits():
    assert Memory(3, 3, "it").fits and not Memory(4, 3, "it").fits


def test_a_process_knows_its_size():
    before, there = process_memory()
    held = torch.ones(before // 4)  # as much again
    after, _ = process_memory()
    assert after - before > 0.5 * held.nbytes and there > held.nbytes
