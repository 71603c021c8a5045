"""What is foretold of memory: storages that live, counted once, and let go."""

import pytest
import torch

from genstack.training.forecast import Alive, Memory, process_memory


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


def test_whether_it_fits():
    assert Memory(3, 3, "it").fits and not Memory(4, 3, "it").fits


def test_a_process_knows_its_size():
    before, there = process_memory()
    held = torch.ones(2**26)
    after, _ = process_memory()
    assert after - before > 0.5 * held.nbytes and there > held.nbytes
