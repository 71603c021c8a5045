"""The Gaussian bottleneck against closed forms, sampling and the VAE's paper."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from genstack.checkpoints.model_file import load, save
from genstack.compressor import Autoencoder, Convolutional, Gaussian
from genstack.compressor.gaussian import divergence
from genstack.data.images import Preprocessing
from genstack.description import build, describe, identity
from genstack.errors import UserError
from genstack.inputs import ConditionInputs
from genstack.layout import LatentLayout
from genstack.model import Model
from genstack.prior import SamplingOptions, image_seeds
from genstack.training.codebook_usage import LatentUsage, usage_monitor

NETWORK = Convolutional(6, 8, (1, 2), 1, (), False)


def vae(**arguments):
    return Autoencoder(3, NETWORK, Gaussian(dim=4, **arguments)).eval()


def model(**arguments):
    return Model(vae(**arguments), Preprocessing(3, 12, 16))


def test_divergence_matches_torch():
    mean, log_variance = 2 * torch.randn(50), torch.randn(50)
    theirs = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(divergence(mean, log_variance), theirs)


def test_samples_have_the_predicted_mean_and_variance():
    latents = torch.tensor([1.5, -2.0, math.log(0.25), math.log(4.0)])[None, :, None, None]
    drawn = Gaussian(2).train()(latents.expand(1, 4, 300, 300)).latents
    torch.testing.assert_close(drawn.mean((0, 2, 3)), torch.tensor([1.5, -2.0]), atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.std((0, 2, 3)), torch.tensor([0.5, 2.0]), atol=0.03, rtol=0)


def test_evaluation_uses_the_mean():
    latents = torch.randn(2, 8, 3, 5)
    bottlenecked = Gaussian(4).eval()(latents)
    assert torch.equal(bottlenecked.latents, latents[:, :4])
    assert bottlenecked.nats.shape == (2, 4, 3, 5)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8)])
def test_loss_is_nats_per_position_at_any_size(size):
    """Mean 1 and variance 1 cost half a nat per channel, whatever the size and the batch."""
    latents = torch.cat([torch.ones(2, 3, *size), torch.zeros(2, 3, *size)], dim=1)
    loss = Gaussian(3, divergence_weight=0.1).train()(latents).losses["divergence"]
    torch.testing.assert_close(loss, torch.tensor(0.1 * 3 * 0.5))


def test_free_bits_have_no_gradient():
    """One channel says 2 nats, the other 0.02: below one bit."""
    mean = torch.tensor([2.0, 0.2])[None, :, None, None].expand(1, 2, 4, 4)
    latents = torch.cat([mean, torch.zeros(1, 2, 4, 4)], dim=1).requires_grad_()
    loss = Gaussian(2, divergence_weight=1.0, free_bits=1.0).train()(latents).losses["divergence"]
    torch.testing.assert_close(loss, torch.tensor(2.0 + math.log(2)))
    loss.backward()
    assert latents.grad[:, 0].abs().sum() > 0
    assert latents.grad[:, 1].abs().sum() == 0
    assert latents.grad[:, 3].abs().sum() == 0


def test_extreme_log_variances_stay_finite():
    latents = torch.cat([torch.zeros(1, 2, 3, 3), torch.full((1, 2, 3, 3), 1e4)], dim=1).requires_grad_()
    bottlenecked = Gaussian(2).train()(latents)
    (bottlenecked.latents.sum() + bottlenecked.losses["divergence"]).backward()
    assert latents.grad.isfinite().all()


def test_gaussian_is_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        bottlenecked = Gaussian(2)(torch.randn(1, 4, 3, 3).bfloat16())
    assert {bottlenecked.latents.dtype, bottlenecked.losses["divergence"].dtype} == {torch.float32}


def test_one_step_trains_every_parameter():
    compressor, images = vae().train(), torch.rand(2, 3, 12, 16) * 2 - 1
    made = compressor(images)
    ((made.images - images).square().mean() + sum(made.losses.values())).backward()
    assert all(parameter.grad is not None for parameter in compressor.parameters())
    assert made.codes is None


def test_network_without_projection_predicts_mean_and_log_variance():
    with pytest.raises(UserError, match="equal channels, got 6 and 8"):
        Autoencoder(3, NETWORK, Gaussian(4), projection=0)


def test_it_encodes_means_that_decode_to_the_reconstruction():
    compressor, images = vae().eval(), torch.rand(2, 3, 12, 16) * 2 - 1
    layout, latents = compressor.layout(12, 16), compressor.encode(images)
    assert layout == LatentLayout((12, 16), 4, ((6, 8),)) and latents.shape == (2, *layout.shape)
    assert torch.equal(compressor.decode(latents, layout), compressor(images).images)
    mean, deviation = compressor.posterior(images).unbind(dim=1)
    assert torch.equal(mean, latents) and (deviation > 0).all()


def test_what_needs_codes_refuses_latents_in_a_sentence():
    with pytest.raises(UserError, match="latents of 6x8, 4 channels and no codes; use one with a quantizer"):
        vae().code_layout(12, 16)


def test_vae_round_trips_through_a_file(tmp_path):
    there = model(divergence_weight=0.25, free_bits=0.5)
    save(there, tmp_path)
    back = load(tmp_path)
    images = torch.rand(2, 3, 12, 16)
    assert torch.equal(back.reconstruct(images), there.reconstruct(images))
    assert identity(back) == identity(there)
    assert describe(build(describe(there.compressor))) == describe(there.compressor)


def test_samples_depend_on_seed_and_index_only():
    drawing, options = model(), SamplingOptions()
    together = drawing.sample(ConditionInputs.nothing(4), options, 3, range(4))
    alone = drawing.sample(ConditionInputs.nothing(1), options, 3, [2])
    torch.testing.assert_close(together[2:3], alone, atol=1e-5, rtol=0)
    assert not torch.equal(together[0], together[1])
    assert drawing.sample(ConditionInputs.nothing(1), options, 3, [0], size=(20, 8)).shape == (1, 3, 20, 8)


def test_latents_are_standard_normal_times_temperature():
    seeds = image_seeds(0, range(50))
    latents = Gaussian(4).sample(seeds, 20, 30, 1.0)
    assert abs(latents.mean()) < 0.01
    assert abs(latents.std() - 1) < 0.01
    assert torch.equal(Gaussian(4).sample(seeds, 20, 30, 0.5), latents / 2)


def test_options_of_codes_are_rejected():
    with pytest.raises(UserError, match="only supports temperature"):
        model().sample(ConditionInputs.nothing(1), SamplingOptions(top_k=3), 0, [0])


def test_interpolation_ends_are_reconstructions():
    going, images = model(), torch.rand(2, 3, 12, 16) * 2 - 1
    way = going.interpolate(images[0], images[1], 5)
    ends = going.reconstruct(images)
    torch.testing.assert_close(way[[0, -1]], ends, atol=1e-5, rtol=0)
    middle = going.compressor.latents(images).mean(0, keepdim=True)[:, :4]
    expected = going.compressor.images(middle, (12, 16)).clamp(-1, 1)
    torch.testing.assert_close(way[2:3], expected, atol=1e-5, rtol=0)


def test_usage_of_latents():
    watched = usage_monitor(vae(), 12, 16)
    assert isinstance(watched, LatentUsage)
    assert watched.representation == "latents of 6x8 without codes"
    made = vae()(torch.rand(2, 3, 12, 16))
    made.nats = torch.tensor([0.5, 0.011, 0.009, 0.0])[None, :, None, None].expand(2, 4, 6, 8)
    watched.update(made)
    watched.after_step(skipped=False)
    assert watched.training_metrics() == pytest.approx({"rate": 0.52 * 48, "active": 0.5})
    assert watched.warning() == ""
    watched.update_validation(made)
    made.nats = torch.zeros(6, 4, 6, 8)
    watched.update_validation(made)
    assert watched.validation_metrics() == pytest.approx({"rate": 0.52 * 48 / 4, "active": 0.25})
    watched.update(made)
    watched.after_step(skipped=True)
    assert watched.warning() == "", "what a step that was thrown away has seen does not count"
    watched.update(made)
    watched.after_step(skipped=False)
    assert "only 0% of the latents' channels" in watched.warning()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dim": 0}, "dim 0"),
        ({"divergence_weight": -1.0}, "divergence_weight"),
        ({"free_bits": -0.5}, "free_bits"),
    ],
)
def test_invalid_arguments_are_rejected(wrong, message):
    with pytest.raises(UserError, match=message):
        Gaussian(**wrong)
