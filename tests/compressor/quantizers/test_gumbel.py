"""Gumbel-softmax: schedules, divergence and mixtures."""

import math

import pytest
import torch
import torch.nn.functional as F

from genstack.compressor.quantizers import Gumbel


def stepped(quantizer, steps):
    for _ in range(steps):
        quantizer.after_step(skipped=False)
    return quantizer


def test_temperature_follows_a_cosine():
    quantizer = Gumbel(temperature=2.0, final_temperature=0.5, annealing=8)
    found = [float(stepped(quantizer, 1).temperature_now()) for _ in range(12)]
    expected = [0.5 + 1.5 * (1 + math.cos(math.pi * min(step / 8, 1))) / 2 for step in range(1, 13)]
    assert found == pytest.approx(expected)
    assert float(Gumbel(annealing=0).temperature_now()) == pytest.approx(0.0625)


def test_steps_are_saved_without_skipped_ones():
    quantizer, resumed = stepped(Gumbel(annealing=8), 3), Gumbel(annealing=8)
    quantizer.after_step(skipped=True)
    resumed.load_state_dict(quantizer.state_dict())
    assert int(resumed.step) == 3
    assert resumed.temperature_now() == quantizer.temperature_now() < 1


def test_divergence_from_uniform_warms_up():
    quantizer = Gumbel(7, 3, sharpness=1.5, divergence_weight=2.0, divergence_warmup=4)
    latents = torch.randn(2, 3, 5, 4)
    probabilities = quantizer.scores(latents.movedim(1, -1), quantizer.directions).softmax(-1)
    divergence = (probabilities * (probabilities * 7).log()).sum(-1).mean()
    for step in range(6):
        expected = 2.0 * (1 - math.cos(math.pi * min(step / 4, 1))) / 2 * divergence
        torch.testing.assert_close(quantizer(latents).losses["divergence"], expected)
        quantizer.after_step(skipped=False)


@pytest.mark.parametrize("sharpness", [1.5, None])
def test_training_samples_codes_by_probability(sharpness):
    """At a low temperature nearly one row remains, and it is drawn as often as the softmax says."""
    quantizer = Gumbel(4, 3, sharpness, temperature=0.01, final_temperature=0.01).train()
    latents = torch.randn(1, 3, 1, 1)
    probabilities = quantizer.scores(latents[0, :, 0, 0], quantizer.directions).softmax(-1)
    mixed = quantizer(latents.expand(1, 3, 100, 200)).latents[0].flatten(1).T
    drawn = torch.cdist(mixed, quantizer.vectors).argmin(1)
    torch.testing.assert_close(torch.bincount(drawn, minlength=4) / 20000, probabilities, atol=0.02, rtol=0)


def test_most_likely_row_is_the_nearest_direction():
    quantizer = Gumbel(codebook_size=7, dim=3).eval()
    latents = torch.randn(2, 3, 5, 4)
    cosines = F.cosine_similarity(latents.movedim(1, -1)[..., None, :], quantizer.rows, dim=-1)
    torch.testing.assert_close(
        quantizer.scores(latents.movedim(1, -1), quantizer.directions), quantizer.sharpness * cosines
    )
    assert torch.equal(quantizer(latents).codes, cosines.argmax(-1).flatten(1))


def test_logits_from_a_linear_layer():
    quantizer = Gumbel(codebook_size=7, dim=3, sharpness=None).eval()
    latents = torch.randn(2, 3, 5, 4)
    codes = quantizer.logits(latents.movedim(1, -1)).argmax(-1)
    assert torch.equal(quantizer(latents).codes, codes.flatten(1))
    assert torch.equal(quantizer(latents).latents, quantizer.rows[codes].movedim(-1, 1))


def test_loss_matches_the_bound_of_dall_e():
    """Appendix A.2: beta times the divergence summed over positions, over all values of the image."""
    quantizer = Gumbel(7, 3, sharpness=1.5, divergence_weight=6.6 / (3 * 8**2), divergence_warmup=0)
    latents = torch.randn(2, 3, 4, 6)  # of images of 3 x 32 x 48 values
    logs = quantizer.scores(latents.movedim(1, -1), quantizer.directions).log_softmax(-1)
    summed = (logs.exp() * (logs - math.log(1 / 7))).sum((1, 2, 3)).mean()
    torch.testing.assert_close(quantizer(latents).losses["divergence"], 6.6 * summed / (3 * 32 * 48))


@pytest.mark.parametrize(
    "wrong",
    [{"sharpness": 0.0}, {"dim": 1}, {"temperature": 0.0}, {"annealing": -1}, {"divergence_weight": -1.0}],
)
def test_invalid_arguments_are_rejected(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Gumbel(**wrong)


def test_long_latents_have_gradients():
    """A large step of all latents together must not make codes certain for good: they have a gradient yet."""
    torch.manual_seed(0)
    quantizer = Gumbel(64, 8, divergence_warmup=0).train()
    latents = 0.1 * torch.randn(2, 8, 8, 8)
    latents[:, 0] += 5.0
    quantizer(latents)
    away = (100 * latents).requires_grad_()
    quantized = quantizer(away)
    torch.testing.assert_close(quantized.losses, quantizer(latents).losses)
    sum(quantized.losses.values()).backward()
    assert (away.grad.abs().sum(1) > 0).all()
