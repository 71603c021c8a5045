"""Chunked nearest-row search against brute force."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from genstack.compressor.quantizers import nearest as module
from genstack.compressor.quantizers.nearest import nearest


def brute_force(latents, rows):
    """The first row at the least distance, all of them compared, in double precision."""
    squares = (latents.double()[:, None] - rows.double()[None]).square().sum(-1)
    return torch.tensor([distances.tolist().index(min(distances)) for distances in squares])


class Largest(TorchDispatchMode):
    """Records the most elements of any result."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize("chunk", [1, 140, 1000, 2**20])
@pytest.mark.parametrize("most_rows", [1, 13, 67, 2**14])
def test_chunks_do_not_change_results(monkeypatch, chunk, most_rows):
    """Small whole numbers make every sum exact, and many distances equal."""
    torch.manual_seed(0)
    monkeypatch.setattr(module, "CHUNK", {"cpu": chunk})
    monkeypatch.setattr(module, "ROWS", most_rows)
    rows, latents = torch.randint(-2, 3, (200, 5)).float(), torch.randint(-3, 4, (37, 5)).float()
    expected = brute_force(latents, rows)
    assert torch.equal(nearest(latents, rows), expected)
    assert len(rows.unique(dim=0)) < 200  # or there were no ties


@pytest.mark.parametrize(("count", "size", "dim"), [(1, 1, 1), (301, 1000, 3), (77, 2049, 8), (13, 20001, 7)])
def test_choice_is_the_nearest(count, size, dim):
    torch.manual_seed(0)
    latents, rows = torch.randn(count, dim), torch.randn(size, dim)
    squares = torch.cdist(latents.double(), rows.double()).square()
    chosen = squares.gather(1, nearest(latents, rows)[:, None]).squeeze(1)
    torch.testing.assert_close(chosen, squares.min(1).values, atol=1e-5, rtol=0)


def test_memory_is_bounded_for_large_codebooks():
    latents, rows = torch.randn(200, 4), torch.randn(65536, 4)
    with Largest() as largest:
        nearest(latents, rows)
    assert largest.elements <= module.CHUNK["cpu"]
    assert largest.elements < 200 * 65536 / 10


def test_codes_of_non_finite_latents_stay_in_range():
    latents = torch.tensor([[torch.nan, 0.0], [torch.inf, 0.0], [-torch.inf, torch.inf], [1e38, 1e38]])
    codes = nearest(latents, torch.randn(9, 2))
    assert codes.min() >= 0
    assert codes.max() < 9


@pytest.mark.parametrize(("size", "dim"), [(300, 3), (5000, 8), (16384, 8), (20001, 33), (9000, 256)])
def test_first_of_equal_rows_is_chosen(size, dim):
    """Each row stands in two or three far places, so that blocks and chunks compare equals."""
    few = torch.randn(size // 2 - 17, dim)
    rows = torch.cat([few, few[torch.randperm(len(few))], few])[:size]
    asked = few[:400]
    codes = nearest(asked + 0.001 * torch.randn_like(asked), rows)
    assert torch.equal(codes, torch.arange(len(asked)))


@pytest.mark.parametrize("dim", [8, 256])
def test_codes_match_the_full_matrix(dim):
    """By more than 1e-5 relative, with distances of the order of the vectors' sizes."""
    latents, rows = torch.randn(512, dim), torch.randn(16384, dim)
    squares = torch.cdist(latents.double(), rows.double()).square()
    best = squares.topk(2, dim=1, largest=False)
    clear = best.values[:, 1] - best.values[:, 0] > 1e-5 * best.values[:, 0]
    assert clear.float().mean() > 0.99
    assert torch.equal(nearest(latents, rows)[clear], best.indices[clear, 0])
