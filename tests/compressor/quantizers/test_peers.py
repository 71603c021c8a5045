"""Comparison with vector-quantize-pytorch: rotation trick, SimVQ, and entropies of signs."""

import pytest
import torch
from vector_quantize_pytorch import LFQ as PeerLFQ
from vector_quantize_pytorch import SimVQ as PeerSimVQ
from vector_quantize_pytorch.vector_quantize_pytorch import rotate_to

from genstack.compressor.quantizers import BSQ, LFQ, SimVQ
from genstack.compressor.quantizers.estimator import RotationTrick, StraightThrough


def test_rotation_trick_matches_vector_quantize_pytorch():
    soft, hard, weights = torch.randn(3, 5, 7, 4).unbind()
    found = []
    for turned in (RotationTrick().__call__, lambda hard, soft: rotate_to(soft, hard)):
        latents = soft.clone().requires_grad_()
        vectors = turned(hard, latents)
        (vectors * weights).sum().backward()
        found.append((vectors.detach(), latents.grad))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("estimator", "trick"), [(StraightThrough(), False), (RotationTrick(), True)])
def test_simvq_matches_vector_quantize_pytorch(estimator, trick):
    """Vectors, codes, both terms with their usual weights, and what these teach the layer and the encoder."""
    ours = SimVQ(23, 6, estimator=estimator, codebook_init=None, dead_after=None)
    theirs = PeerSimVQ(6, 23, channel_first=True, rotation_trick=trick)
    with torch.no_grad():
        theirs.frozen_codebook.copy_(ours.table)
        theirs.code_transform.weight.copy_(ours.linear.weight)
        ours.linear.bias.zero_()
    latents, weights = torch.randn(2, 2, 6, 5, 3).unbind()
    one, other = (latents.clone().requires_grad_() for _ in range(2))
    made = ours(one)
    vectors, codes, loss = theirs(other)
    assert torch.equal(made.codes, codes.flatten(1))
    torch.testing.assert_close(made.latents, vectors, atol=1e-5, rtol=1e-5)
    total = made.losses["codebook"] + made.losses["commitment"]
    torch.testing.assert_close(total, loss)
    ((made.latents * weights).sum() + total).backward()
    ((vectors * weights).sum() + loss).backward()
    torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        ours.linear.weight.grad, theirs.code_transform.weight.grad, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("spherical", [False, True])
def test_signs_and_entropies_match_vector_quantize_pytorch(spherical):
    """LFQ and BSQ; our first channel is the lowest bit, theirs the highest."""
    latents = torch.randn(2, 6, 5, 3)
    weights = {"entropy_weight": 0.3, "diversity": 0.7}
    if spherical:  # the softmax of u c / temperature
        ours = BSQ(6, temperature=1 / (2 * 2.5), **weights)
    else:  # the softmax of -|z - c|^2 / temperature
        ours = LFQ(6, temperature=1 / 2.5, commitment_weight=0.2, **weights)
    theirs = PeerLFQ(
        dim=6,
        entropy_loss_weight=0.3,
        diversity_gamma=0.7,
        commitment_loss_weight=0.0 if spherical else 0.2,
        spherical=spherical,
    ).train()
    one, other = latents.clone().requires_grad_(), latents.flip(1).requires_grad_()
    made = ours(one)
    (vectors, codes, loss), _ = theirs(other, inv_temperature=2.5, return_loss_breakdown=True)
    assert torch.equal(made.codes, codes.flatten(1))
    torch.testing.assert_close(made.latents, vectors.flip(1), atol=1e-6, rtol=1e-5)
    total = sum(made.losses.values())
    torch.testing.assert_close(total, loss, atol=2e-4, rtol=1e-4)  # theirs holds probabilities above 1e-5
    total.backward()
    loss.backward()
    torch.testing.assert_close(one.grad, other.grad.flip(1), atol=2e-5, rtol=1e-3)
