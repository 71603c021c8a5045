"""Laws of every network in the folder, alone and with every quantizer."""

import importlib
import re

import pytest
import torch

from genstack.compressor import Autoencoder
from genstack.compressor.quantizers import VectorQuantizer

SIZES = [(32, 32), (48, 64), (96, 32)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_encoder_and_decoder_match_the_grid(network, size, channels):
    encoder, decoder = network.encoder(channels), network.decoder(channels)
    latents = encoder(torch.randn(2, channels, *size))
    assert latents.shape == (2, encoder.dim, *network.grid(*size))
    assert decoder(torch.randn(2, decoder.dim, *network.grid(*size)), size).shape == (2, channels, *size)


@pytest.mark.parametrize("size", [(0, 32), (32, 0), (-32, 32)])
def test_unsupported_sizes_are_one_line(network, size):
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]}.*use") as refusal:
        network.grid(*size)
    assert "\n" not in str(refusal.value)


def test_last_layer_is_a_parameter_of_the_decoder(network):
    decoder = network.decoder(4)
    assert any(parameter is decoder.last_layer for parameter in decoder.parameters())


def test_last_layer_outputs_pixels(network):
    """Zeroed, no pixel depends on the latents any more."""
    decoder = network.decoder(3)
    with torch.no_grad():
        decoder.last_layer.zero_()
    latents = torch.randn(2, decoder.dim, *network.grid(32, 48))
    images = decoder(latents, (32, 48))
    assert torch.equal(images[0], images[1])


def test_networks_build_with_defaults(network):
    assert type(network)()


def test_network_settings_are_plain_values(network):
    assert network == type(network)(**vars(network))
    assert hash(network) == hash(type(network)(**vars(network)))


def test_module_names_its_paper(network):
    assert re.search(r"arXiv:\d{4}\.\d{5}", importlib.import_module(type(network).__module__).__doc__)


def check_training_step(model, images):
    """Every parameter has a finite gradient, and the last layer one that is not 0."""
    reconstruction = model(images)
    loss = (reconstruction.images - images).square().mean() + sum(reconstruction.losses.values())
    loss.backward()
    model.after_step(skipped=False)
    assert reconstruction.images.shape == images.shape
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert model.last_layer.grad.abs().sum() > 0


def check_decoding(model, images):
    """Decoded codes are the reconstruction."""
    layout = model.layout(*images.shape[2:])
    with torch.no_grad():
        reconstruction, codes = model(images), model.encode(images)
        decoded = model.decode(codes, layout)
    assert torch.equal(codes, reconstruction.codes)
    assert codes.shape == (2, layout.length)
    torch.testing.assert_close(decoded, reconstruction.images, atol=1e-4, rtol=0)


def test_one_step_trains_every_parameter(network, quantizer):
    check_training_step(Autoencoder(1, network, quantizer), torch.rand(2, 1, 32, 48) * 2 - 1)


def test_decoded_codes_are_the_reconstruction(network, quantizer):
    check_decoding(Autoencoder(3, network, quantizer).eval(), torch.rand(2, 3, 32, 48) * 2 - 1)


@pytest.mark.parametrize(("size", "channels"), [((32, 32), 3), ((64, 32), 3)])
def test_other_sizes_with_one_quantizer(network, size, channels):
    """A quantizer sees the grid alone; the law above has its sides unequal."""
    images = torch.rand(2, channels, *size) * 2 - 1
    check_training_step(Autoencoder(channels, network, VectorQuantizer(24, 4)), images)
    check_decoding(Autoencoder(channels, network, VectorQuantizer(24, 4)).eval(), images)
