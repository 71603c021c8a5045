"""Index backpropagation against the textbook form with one-hot matrices."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from genstack.compressor.quantizers import IBQ, soft_choice


def textbook(latents, rows, temperature, commitment_weight):
    """Equations 3 to 6, with all matrices written out; latents `n d`."""
    logits = latents @ rows.T
    soft = logits.softmax(1)
    one_hot = F.one_hot(soft.argmax(1), len(rows)).float()
    quantized = (one_hot - soft.detach() + soft) @ rows
    hard = one_hot @ rows
    pulls = (quantized - latents).square().mean() + (hard.detach() - latents).square().mean()
    pulls = pulls + commitment_weight * (hard - latents.detach()).square().mean()
    sharp = (logits / temperature).softmax(1)
    single = -(sharp * (sharp + 1e-30).log()).sum(1).mean()
    batch = -(sharp.mean(0) * (sharp.mean(0) + 1e-30).log()).sum()
    return quantized, pulls, single - batch


@pytest.mark.parametrize("chunk", [2**22, 30])
def test_values_and_gradients_match_one_hot_matrices(chunk, monkeypatch):
    monkeypatch.setattr(soft_choice, "CHUNK", chunk)  # 30: two latents at a time
    quantizer = IBQ(13, 3, 2.0, 0.3, 0.7, temperature=0.5, codebook_init=None)
    latents = torch.randn(2, 3, 5, 3, requires_grad=True)
    weights = torch.randn(2, 3, 5, 3)
    quantized = quantizer(latents)
    ((quantized.latents * weights).sum() + sum(quantized.losses.values())).backward()
    found, found_rows = latents.grad.clone(), quantizer.rows.grad.clone()
    latents.grad = quantizer.rows.grad = None

    flat = latents.movedim(1, -1).reshape(-1, 3)
    expected, pulls, entropies = textbook(flat, quantizer.rows, 0.5, 0.3)
    torch.testing.assert_close(quantized.losses["quantization"], 2.0 * pulls)
    torch.testing.assert_close(quantized.losses["entropy"], 0.7 * entropies)
    torch.testing.assert_close(quantized.latents.movedim(1, -1).reshape(-1, 3), expected)
    ((expected * weights.movedim(1, -1).reshape(-1, 3)).sum() + 2.0 * pulls + 0.7 * entropies).backward()
    torch.testing.assert_close(found, latents.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found_rows, quantizer.rows.grad, atol=1e-5, rtol=1e-5)


class Storages(TorchDispatchMode):
    """The storages of all that is computed, with their numbers of bytes."""

    def __init__(self):
        super().__init__()
        self.kept = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return result


def test_step_memory_is_bounded(monkeypatch):
    """Nothing grows with latents times rows, and rows have one gradient for all that is done with them."""
    monkeypatch.setattr(soft_choice, "CHUNK", 2**14)  # four latents at a time
    quantizer = IBQ(4096, 8, codebook_init=None, dead_after=None)
    latents = torch.randn(1, 8, 16, 32, requires_grad=True)
    with Storages() as seen:
        quantized = quantizer(latents)
        (quantized.latents.square().mean() + sum(quantized.losses.values())).backward()
    sizes = [storage.nbytes() for storage in seen.kept.values()]
    assert sum(size > 4 * 2**14 for size in sizes) == 2  # the rows themselves, and their gradient


class Chosen(TorchDispatchMode):
    """Maximum number of results that are alive at a time."""

    def __init__(self):
        super().__init__()
        self.seen, self.most = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.argmax.default:
            self.seen.append(weakref.ref(result))
            self.most = max(self.most, sum(each() is not None for each in self.seen))
        return result


def test_chunks_leak_no_memory(monkeypatch):
    """A few bytes that stay between two chunks cost all of the chunk's memory, which then lies in pieces."""
    monkeypatch.setattr(soft_choice, "CHUNK", 4 * 64)
    with Chosen() as chosen:
        soft_choice.soft_choice(torch.randn(32, 3), torch.randn(64, 3), 0.1)
    assert len(chosen.seen) == 8
    assert chosen.most <= 2  # the latest, and the one that it takes the name of


def test_every_row_gets_a_gradient():
    quantizer = IBQ(13, 3)
    (quantizer(torch.randn(1, 3, 1, 2)).losses["entropy"]).backward()
    assert (quantizer.rows.grad.abs().sum(1) > 0).sum() > 2


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_restarted_row_takes_a_share_of_latents(offset):
    """Also where all latents lie to one side, far from 0: there, rows are longer than latents differ."""
    torch.manual_seed(0)
    quantizer = IBQ(64, 8).train()
    latents = torch.randn(2, 8, 16, 16)
    latents[:, 0] += offset
    quantizer(latents)
    dead = torch.arange(8)
    quantizer.restart(dead, latents.movedim(1, -1).reshape(-1, 8))
    counts = torch.bincount(quantizer.eval()(latents).codes.flatten(), minlength=64)
    assert (counts[dead] > 0).sum() >= 6
    assert counts[dead].sum() < 0.5 * counts.sum()


@pytest.mark.parametrize("wrong", [{"codebook_size": 0}, {"temperature": 0.0}, {"entropy_weight": -1.0}])
def test_invalid_arguments_are_rejected(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        IBQ(**wrong)
