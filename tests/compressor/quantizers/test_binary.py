"""Entropies of bits against sums over all codes; symbols to bits and back."""

from itertools import product

import pytest
import torch

from genstack.compressor.quantizers import BSQ, LFQ
from genstack.compressor.quantizers.binary import entropy_of_mean, mean_entropy
from genstack.compressor.quantizers.corners import Corners
from genstack.dist import gloo_group

LOGITS = torch.randn(40, 11, generator=torch.Generator().manual_seed(5)) * 3


def all_corners(bits, scale):
    return torch.tensor(list(product([-1.0, 1.0], repeat=bits))) * scale


def entropy(probabilities):
    return -(probabilities * probabilities.clamp(min=1e-30).log()).sum(-1)


def test_entropies_match_a_softmax_over_all_codes():
    """LFQ by the distance to each of its codes, BSQ by the similarity."""
    latents = torch.randn(2, 6, 5, 3)
    flat = latents.movedim(1, -1).reshape(-1, 6)
    softmax = (-torch.cdist(flat, all_corners(6, 1.0)).square() / 0.7).softmax(1)
    expected = entropy(softmax).mean() - 2.0 * entropy(softmax.mean(0))
    loss = LFQ(bits=6, entropy_weight=3.0, diversity=2.0, temperature=0.7)(latents).losses["entropy"]
    torch.testing.assert_close(loss, 3.0 * expected)
    unit = torch.nn.functional.normalize(flat, dim=1)
    softmax = (unit @ all_corners(6, 6**-0.5).T / 0.2).softmax(1)
    expected = entropy(softmax).mean() - 2.0 * entropy(softmax.mean(0))
    loss = BSQ(bits=6, entropy_weight=3.0, diversity=2.0, temperature=0.2)(latents).losses["entropy"]
    torch.testing.assert_close(loss, 3.0 * expected)


def test_groups_bound_the_batch_entropy_from_above():
    probabilities = torch.stack([(-LOGITS).sigmoid(), LOGITS.sigmoid()], -1)
    joint = torch.ones(40, 1)
    for bit in probabilities.unbind(1):
        joint = (joint[:, :, None] * bit[:, None, :]).flatten(1)
    exact = entropy(joint.mean(0))
    single = entropy(probabilities.mean(0)).sum()
    assert exact < entropy_of_mean(LOGITS) < single
    torch.testing.assert_close(mean_entropy(LOGITS), entropy(joint).mean())


def test_certain_bits_have_finite_gradients():
    logits = torch.tensor([[500.0, -500.0, 0.0], [500.0, 500.0, 0.0]], requires_grad=True)
    (mean_entropy(logits) - entropy_of_mean(logits)).backward()
    assert logits.grad.isfinite().all()


def test_entropy_of_many_codes_fits_in_memory():
    quantizer = LFQ(bits=18, depth=2)
    latents = torch.randn(1, 18, 64, 64, requires_grad=True)
    quantized = quantizer(latents)
    assert quantizer.codebook_size == 512
    assert quantized.codes.shape == (1, 2 * 64 * 64)
    quantized.losses["entropy"].backward()
    assert latents.grad.isfinite().all()


@pytest.mark.parametrize(("bits", "depth"), [(6, 1), (6, 2), (6, 3), (6, 6), (30, 1)])
def test_symbols_invert_to_bits(bits, depth):
    corners = Corners(bits, depth)
    seen = torch.rand(2, 3, 5, bits) < 0.5
    codes = corners.codes(seen)
    assert codes.shape == (2, 15 * depth)
    assert int(codes.max()) < corners.size
    assert torch.equal(corners.bits_of(codes.reshape(2, 3, 5, depth)), seen)
    assert int(codes[0, 0]) == sum(
        int(bit) << place for place, bit in enumerate(seen[0, 0, 0, : bits // depth])
    )


@pytest.mark.parametrize("kind", [LFQ, BSQ])
def test_bits_are_signs_with_straight_through_gradients(kind):
    quantizer = kind(bits=6, entropy_weight=0.0)
    latents, weights = torch.randn(2, 6, 5, 3, requires_grad=True), torch.randn(2, 6, 5, 3)
    quantized = quantizer(latents)
    assert torch.equal(quantized.latents.sign(), latents.sign())
    length = quantized.latents.norm(dim=1)
    torch.testing.assert_close(length, torch.full_like(length, 1.0 if kind is BSQ else 6**0.5))
    (quantized.latents * weights).sum().backward()
    if kind is LFQ:
        assert torch.equal(latents.grad, weights)
    else:
        (found := latents.grad.clone(), latents.grad.zero_())
        (torch.nn.functional.normalize(latents, dim=1) * weights).sum().backward()
        torch.testing.assert_close(found, latents.grad)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "share"), [(LFQ, 0.7), (BSQ, 0.85)])
def test_defaults_use_most_codes(kind, share):
    """A small encoder on a mixture of 256 Gaussians, which only the quantizer's losses move."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(256, 16, generator=generator)
    quantizer = kind(bits=8)
    encoder = torch.nn.Sequential(torch.nn.Conv2d(16, 64, 1), torch.nn.ReLU(), torch.nn.Conv2d(64, 8, 1))
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)

    def latents():
        chosen = centres[torch.randint(256, (512,), generator=generator)]
        noise = 0.05 * torch.randn(512, 16, generator=generator)
        return encoder((chosen + noise).T.reshape(1, 16, 1, 512))

    first = len(quantizer(latents()).codes.unique())
    for _ in range(300):
        optimizer.zero_grad()
        sum(quantizer(latents()).losses.values()).backward()
        optimizer.step()
    codes = torch.cat([quantizer(latents()).codes for _ in range(20)], dim=1)
    assert first < 60
    assert len(codes.unique()) > share * 256


def one_process(rank):
    """The batch entropy and its gradient where each process has half of a batch."""
    logits = LOGITS.chunk(2)[rank].clone().requires_grad_()
    with gloo_group(rank, 2):
        loss = entropy_of_mean(logits)
        loss.backward()
    return loss.detach(), logits.grad


@pytest.mark.distributed
def test_processes_share_one_batch(in_processes):
    found = in_processes(one_process)
    logits = LOGITS.clone().requires_grad_()
    loss = entropy_of_mean(logits)
    loss.backward()
    for each in found:
        torch.testing.assert_close(each[0], loss.detach())
    # DDP averages the gradients of weights over processes, so each must have twice its share
    torch.testing.assert_close(torch.cat([gradient for _, gradient in found]) / 2, logits.grad)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bits": 7, "depth": 2}, "7 bits cannot be split into depth 2"),
        ({"bits": 63}, "use a greater depth"),
        ({"bits": 0}, "bits 0"),
        ({"temperature": 0.0}, "temperature 0"),
        ({"entropy_weight": -1.0}, "entropy_weight -1"),
    ],
)
@pytest.mark.parametrize("kind", [LFQ, BSQ])
def test_invalid_arguments_are_rejected(kind, wrong, message):
    with pytest.raises(ValueError, match=message):
        kind(**wrong)
