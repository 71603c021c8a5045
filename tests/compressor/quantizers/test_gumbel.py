"""Gumbel-softmax: schedules, the divergence, and mixtures that harden."""

import math

import pytest
import torch

from genstack.compressor.quantizers import Gumbel


def stepped(quantizer, steps):
    for _ in range(steps):
        quantizer.after_step(skipped=False)
    return quantizer


def test_the_temperature_falls_along_a_cosine_and_stays():
    quantizer = Gumbel(temperature=2.0, final_temperature=0.5, annealing=8)
    found = [float(stepped(quantizer, 1).temperature_now()) for _ in range(12)]
    expected = [0.5 + 1.5 * (1 + math.cos(math.pi * min(step / 8, 1))) / 2 for step in range(1, 13)]
    assert found == pytest.approx(expected)
    assert float(Gumbel(annealing=0).temperature_now()) == pytest.approx(0.0625)


def test_steps_are_saved_and_skipped_ones_do_not_count():
    quantizer, resumed = stepped(Gumbel(annealing=8), 3), Gumbel(annealing=8)
    quantizer.after_step(skipped=True)
    resumed.load_state_dict(quantizer.state_dict())
    assert int(resumed.step) == 3
    assert resumed.temperature_now() == quantizer.temperature_now() < 1


def test_the_divergence_is_that_from_uniform_and_warms_up_along_a_cosine():
    quantizer = Gumbel(codebook_size=7, dim=3, divergence_weight=2.0, divergence_warmup=4, seeding=False)
    latents = torch.randn(2, 3, 5, 4)
    probabilities = quantizer.logits(latents.movedim(1, -1)).softmax(-1)
    divergence = (probabilities * (probabilities * 7).log()).sum(-1).mean()
    for step in range(6):
        expected = 2.0 * (1 - math.cos(math.pi * min(step / 4, 1))) / 2 * divergence
        torch.testing.assert_close(quantizer(latents).losses["divergence"], expected)
        quantizer.after_step(skipped=False)


def test_training_draws_codes_with_their_probabilities():
    """At a low temperature nearly one row remains, and it is drawn as often as the softmax says."""
    quantizer = Gumbel(
        codebook_size=4, dim=3, temperature=0.01, final_temperature=0.01, seeding=False
    ).train()
    latents = torch.randn(1, 3, 1, 1)
    probabilities = quantizer.logits(latents[0, :, 0, 0]).softmax(-1)
    mixed = quantizer(latents.expand(1, 3, 100, 200)).latents[0].flatten(1).T
    drawn = torch.cdist(mixed, quantizer.rows).argmin(1)
    torch.testing.assert_close(torch.bincount(drawn, minlength=4) / 20000, probabilities, atol=0.02, rtol=0)


def test_evaluation_takes_the_likeliest_row():
    quantizer = Gumbel(codebook_size=7, dim=3).eval()
    latents = torch.randn(2, 3, 5, 4)
    codes = quantizer.logits(latents.movedim(1, -1)).argmax(-1)
    assert torch.equal(quantizer(latents).codes, codes.flatten(1))
    assert torch.equal(quantizer(latents).latents, quantizer.rows[codes].movedim(-1, 1))


def test_the_loss_is_the_bound_of_dall_e():
    """Appendix A.2: beta times the divergence summed over positions, over all values of the image."""
    quantizer = Gumbel(7, 3, divergence_weight=6.6 / (3 * 8**2), divergence_warmup=0, seeding=False)
    latents = torch.randn(2, 3, 4, 6)  # of images of 3 x 32 x 48 values
    logs = quantizer.logits(latents.movedim(1, -1)).log_softmax(-1)
    summed = (logs.exp() * (logs - math.log(1 / 7))).sum((1, 2, 3)).mean()
    torch.testing.assert_close(quantizer(latents).losses["divergence"], 6.6 * summed / (3 * 32 * 48))


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"annealing": -1}, {"divergence_weight": -1.0}])
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Gumbel(**wrong)


def test_codes_begin_soft_where_all_latents_lie_to_one_side():
    """There, a small move of all together must not make one code certain, whose gradient is nothing."""
    torch.manual_seed(0)
    quantizer = Gumbel(64, 8, divergence_warmup=0).train()
    latents = 0.1 * torch.randn(2, 8, 8, 8)
    latents[:, 0] += 5.0
    quantizer(latents)
    moved = (latents + 0.5).requires_grad_()
    quantized = quantizer(moved)
    divergence = quantized.losses["divergence"]
    assert float(divergence.detach()) < 0.5 * quantizer.divergence_weight * math.log(64)
    divergence.backward()
    assert moved.grad.any()
