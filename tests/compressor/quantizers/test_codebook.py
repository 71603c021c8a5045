"""Initialization and restarts of a codebook."""

import copy

import pytest
import torch

from genstack.compressor.quantizers import VectorQuantizer
from genstack.compressor.quantizers.codebook import Codebook
from genstack.compressor.quantizers.kmeans import random_latents
from genstack.dist import gloo_group


def rows_of(tensor):
    return {tuple(row) for row in tensor.tolist()}


def test_first_training_batch_seeds_distinct_rows():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(codebook_size=30, dim=3, normalize=False).train()
    latents = torch.randn(2, 3, 5, 7)
    quantizer(latents)
    rows, seen = rows_of(quantizer.codebook.weight), rows_of(latents.movedim(1, -1).reshape(-1, 3))
    assert len(rows) == 30
    assert rows <= seen
    before = quantizer.codebook.weight.clone()
    quantizer(torch.randn(2, 3, 5, 7))
    assert torch.equal(quantizer.codebook.weight, before)


def test_too_few_latents_are_repeated_with_noise():
    torch.manual_seed(0)
    latents = torch.randn(7, 3)
    drawn = random_latents(latents, 50)
    assert rows_of(latents) <= rows_of(drawn)
    assert len(rows_of(drawn)) == 50
    assert torch.cdist(drawn, latents).min(1).values.max() < 0.1


@pytest.mark.parametrize("quantize", ["eval", "no init", "not finite"])
def test_rows_without_initialization_stay(quantize):
    quantizer = VectorQuantizer(
        codebook_size=9, dim=3, codebook_init=None if quantize == "no init" else "latents"
    )
    before = quantizer.codebook.weight.clone()
    latents = torch.randn(2, 3, 5, 7)
    if quantize == "not finite":
        latents[:] = torch.nan
    quantizer.train(quantize != "eval")(latents)
    assert torch.equal(quantizer.codebook.weight, before)
    assert not quantizer.codebook.initialized


def test_loaded_codebook_is_not_initialized_again():
    first, second = Codebook(9, 3), Codebook(9, 3)
    first.initialize(torch.randn(20, 3))
    second.load_state_dict(first.state_dict())
    second.initialize(torch.randn(20, 3))
    assert torch.equal(second.weight, first.weight)


def observe(codebook, codes, skipped=False):
    """One step in which these codes were chosen; returns the latents that it saw."""
    latents = torch.randn(len(codes), codebook.dim)
    codebook.observe(latents, torch.tensor(codes))
    codebook.after_step(skipped)
    return latents


def test_row_is_dead_after_dead_after_latents():
    torch.manual_seed(0)
    codebook = Codebook(4, 3, dead_after=2.5)  # 10 latents
    before = codebook.weight.detach().clone()
    observe(codebook, [0, 1, 1, 2])
    observe(codebook, [0, 3, 2])
    observe(codebook, [0, 2])
    assert torch.equal(codebook.weight, before)
    assert codebook.dead_codes.passed.tolist() == [0, 5, 0, 2]
    observe(codebook, [0, 2, 3, 0])
    assert torch.equal(codebook.weight, before)
    latents = observe(codebook, [2])  # row 1 has waited for 10 latents now
    assert torch.equal(codebook.weight[1], latents[0])
    assert torch.equal(codebook.weight[[0, 2, 3]], before[[0, 2, 3]])
    assert codebook.dead_codes.passed.tolist() == [1, 0, 0, 1]


def test_dead_rows_restart_from_distinct_latents():
    torch.manual_seed(0)
    codebook = Codebook(6, 2, dead_after=1.0)
    latents = observe(codebook, [0] * 6)
    assert len(rows_of(codebook.weight[1:])) == 5
    assert rows_of(codebook.weight[1:]) <= rows_of(latents)


def test_micro_batches_count_as_one_batch():
    parts, whole = Codebook(5, 2, dead_after=3.0), Codebook(5, 2, dead_after=3.0)
    latents, codes = torch.randn(8, 2), torch.tensor([0, 1, 1, 4, 0, 0, 2, 2])
    for few in (slice(0, 3), slice(3, 8)):
        parts.observe(latents[few], codes[few])
    whole.observe(latents, codes)
    parts.after_step(skipped=False)
    whole.after_step(skipped=False)
    assert parts.dead_codes.passed.tolist() == whole.dead_codes.passed.tolist() == [0, 0, 0, 8, 0]


def test_skipped_step_changes_nothing():
    codebook = Codebook(4, 3, dead_after=1.0)
    before = copy.deepcopy(codebook.state_dict())
    observe(codebook, [0] * 9, skipped=True)
    codebook.after_step(skipped=False)
    for name, value in codebook.state_dict().items():
        assert torch.equal(value, before[name])


def test_restarts_can_be_disabled():
    codebook = Codebook(4, 3, dead_after=None)
    before = codebook.weight.detach().clone()
    for _ in range(100):
        observe(codebook, [0] * 9)
    assert torch.equal(codebook.weight, before)


def test_resumed_codebook_continues_exactly():
    torch.manual_seed(0)
    codebook, resumed = Codebook(5, 2, dead_after=2.0), Codebook(5, 2, dead_after=2.0)
    observe(codebook, [0, 1, 2, 0, 0, 0])
    resumed.load_state_dict(codebook.state_dict())
    for each in (codebook, resumed):
        torch.manual_seed(1)
        observe(each, [0, 1, 0, 0, 0])
    assert torch.equal(codebook.weight, resumed.weight)
    assert rows_of(codebook.weight) != rows_of(Codebook(5, 2).weight)
    assert codebook.dead_codes.passed.tolist() == resumed.dead_codes.passed.tolist()


def test_averages_follow_the_formula():
    codebook = Codebook(4, 3, codebook_init=None, dead_after=None, decay=0.9)
    counts, sums = torch.ones(4), codebook.weight.clone()
    for codes in ([0, 1, 1, 2], [0, 0, 3, 3, 3], [1]):
        before = codebook.weight.clone()
        latents = observe(codebook, codes)
        for row in range(4):
            mine = latents[torch.tensor(codes) == row]
            counts[row] = 0.9 * counts[row] + 0.1 * len(mine)
            sums[row] = 0.9 * sums[row] + 0.1 * mine.sum(0)
            expected = sums[row] / counts[row] if len(mine) else before[row]
            torch.testing.assert_close(codebook.weight[row], expected)
    assert [name for name, _ in codebook.named_parameters()] == []


def test_unused_average_adapts_quickly():
    codebook = Codebook(2, 3, codebook_init=None, dead_after=None, decay=0.5)
    for _ in range(300):
        observe(codebook, [0])
    latents = observe(codebook, [1])
    torch.testing.assert_close(codebook.weight[1], latents[0])


def test_restarted_average_is_reset():
    codebook = Codebook(3, 2, dead_after=4.0, decay=0.9)
    observe(codebook, [0, 1, 2])
    observe(codebook, [0, 1] * 6)
    place = codebook.weight[2].clone()
    observe(codebook, [0])
    assert torch.equal(codebook.weight[2], place)
    latent = torch.tensor([[1.0, 2.0]])
    codebook.observe(latent, torch.tensor([2]))
    codebook.after_step(skipped=False)
    torch.testing.assert_close(codebook.weight[2], (0.81 * place + 0.1 * latent[0]) / (0.81 + 0.1))


def test_micro_batches_average_as_one_batch():
    parts, whole = Codebook(5, 2, decay=0.9), Codebook(5, 2, decay=0.9)
    whole.load_state_dict(parts.state_dict())
    latents, codes = torch.randn(8, 2), torch.tensor([0, 1, 1, 4, 0, 0, 2, 2])
    for few in (slice(0, 3), slice(3, 8)):
        parts.observe(latents[few], codes[few])
    whole.observe(latents, codes)
    parts.after_step(skipped=False)
    whole.after_step(skipped=False)
    torch.testing.assert_close(parts.weight, whole.weight)


def test_skipped_step_does_not_update_averages():
    codebook = Codebook(4, 3, decay=0.9)
    before = copy.deepcopy(codebook.state_dict())
    observe(codebook, [0] * 9, skipped=True)
    codebook.after_step(skipped=False)
    for name, value in codebook.state_dict().items():
        assert torch.equal(value, before[name])


def one_process(rank):
    """Seed and restart where each process sees other latents and other codes."""
    with gloo_group(rank, 2):
        torch.manual_seed(rank)
        codebook = Codebook(6, 2, dead_after=1.0)
        codebook.initialize(torch.randn(9, 2))
        seeds = codebook.weight.detach().clone()
        observe(codebook, [rank, rank + 1, 5])
        averages = Codebook(6, 2, codebook_init="kmeans", decay=0.9)
        averages.initialize(torch.randn(9, 2))
        before = copy.deepcopy(averages.state_dict())
        latents = observe(averages, [rank, rank + 1, 5])
    learned = [seeds, codebook.weight.detach(), codebook.dead_codes.passed]
    return learned, [before, averages.state_dict()], latents


@pytest.mark.distributed
def test_processes_agree_on_all_rows(in_processes):
    (one, ones, halves), (other, others, rest) = in_processes(one_process)
    torch.testing.assert_close(one, other, atol=0, rtol=0)
    seeds, rows, idle = one
    chosen = [0, 1, 2, 5]  # by either process
    assert torch.equal(rows[chosen], seeds[chosen])
    assert (rows[[3, 4]] != seeds[[3, 4]]).all()
    assert idle.tolist() == [0] * 6

    torch.testing.assert_close(ones, others, atol=0, rtol=0)
    before, after = ones
    alone = Codebook(6, 2, codebook_init="kmeans", decay=0.9)
    alone.load_state_dict(before)
    alone.observe(torch.cat([halves, rest]), torch.tensor([0, 1, 5, 1, 2, 5]))
    alone.after_step(skipped=False)
    torch.testing.assert_close(alone.weight, after["weight"], atol=1e-6, rtol=0)
