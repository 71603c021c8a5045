"""Pixel distances against numpy in float64."""

import numpy as np
import pytest
import torch

import genstack.losses
from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.output import LocationAndScale, Pixels, expand, squeeze
from genstack.compressor.quantizers import VectorQuantizer
from genstack.discovery import discover
from genstack.losses.reconstruction import L1, LogitLaplace, ReconstructionLoss

LOSSES = discover(genstack.losses, ReconstructionLoss)
TRUTH = {"L1": lambda difference: np.abs(difference).mean(), "L2": lambda difference: (difference**2).mean()}


@pytest.mark.parametrize("name", TRUTH)
def test_loss_is_the_mean_over_values(name):
    reconstruction, images = torch.randn(2, 3, 3, 5, 7).unbind()
    found = LOSSES[name]()(reconstruction, images)
    assert found.item() == pytest.approx(
        TRUTH[name]((reconstruction.double() - images.double()).numpy()), rel=1e-6
    )


def density(values, location, scale):
    """Equation 2 of the paper, in float64."""
    distance = np.abs(np.log(values / (1 - values)) - location)
    return np.exp(-distance / scale) / (2 * scale * values * (1 - values))


def test_logit_laplace_matches_the_density():
    written, images = torch.randn(2, 6, 5, 7), torch.rand(2, 3, 5, 7) * 2 - 1
    location, log_scale = written.double().numpy()[:, :3], written.double().numpy()[:, 3:]
    values = 0.8 * (images.double().numpy() + 1) / 2 + 0.1  # equation 3
    truth = -np.log(density(values, location, np.exp(log_scale))).mean()
    assert LogitLaplace()(written, images).item() == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize(("location", "scale"), [(0.0, 1.0), (-1.5, 0.3), (2.0, 0.5)])
def test_density_integrates_to_one(location, scale):
    """Its integral over (0, 1): the loss is a true likelihood, and comparable between runs."""
    values = (np.arange(400_000) + 0.5) / 400_000
    images = expand(torch.tensor(values))
    written = torch.tensor([location, np.log(scale)]).reshape(1, 2, 1, 1)
    one = [density(value, location, scale) for value in values[50_000::100_000]]
    for value, truth in zip(images[50_000::100_000], one, strict=True):
        found = LogitLaplace()(written, value.reshape(1, 1, 1, 1)).neg().exp()
        assert found.item() == pytest.approx(truth, rel=1e-4)
    assert density(values, location, scale).mean() == pytest.approx(1, abs=2e-3)


def test_best_location_is_the_image():
    images = torch.rand(1, 3, 4, 5) * 2 - 1
    written = torch.cat([squeeze(images).logit(), torch.zeros_like(images)], 1)
    torch.testing.assert_close(LocationAndScale().images(written), images)
    torch.testing.assert_close(expand(squeeze(images)), images)
    for step in (-0.1, 0.1):
        assert LogitLaplace()(written, images) < LogitLaplace()(written + step * (written != 0), images)


def test_location_and_scale_compressor_returns_images():
    network = Convolutional(
        dim=4, width=4, multipliers=(1, 2), blocks=1, attention=(), middle_attention=False
    )
    model = Autoencoder(3, network, VectorQuantizer(8, 4), output=LocationAndScale()).eval()
    images = torch.rand(2, 3, 8, 12) * 2 - 1
    made = model(images)
    assert made.decoder_output.shape == (2, 6, 8, 12) and made.images.shape == images.shape
    torch.testing.assert_close(
        model.decode(model.encode(images), model.layout(8, 12)), made.images, atol=1e-5, rtol=1e-4
    )
    LogitLaplace().of(made, images).backward()
    assert model.last_layer.grad.abs().sum((1, 2, 3)).all(), "locations and scales both learn"
    torch.testing.assert_close(L1().of(made, images), L1()(made.images, images))


def test_output_without_scale_is_rejected():
    LogitLaplace().check(LocationAndScale())
    L1().check(LocationAndScale())
    with pytest.raises(ValueError, match="set the compressor's output to LocationAndScale"):
        LogitLaplace().check(Pixels())
