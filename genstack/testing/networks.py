"""Laws of networks."""

from typing import Any

import torch

from genstack.compressor import Network
from genstack.compressor.quantizers import VectorQuantizer
from genstack.testing.autoencoders import compare_decoded, train_one_step
from genstack.testing.expect import build, refusal

SIZES = [(32, 32), (48, 64), (96, 32)]


def make(part: type[Network], **given: Any) -> Network:
    """Build the network."""
    return build(part, **given)


def halves_agree_with_the_grid(network: Network) -> None:
    """The encoder's latents have the height and width of `grid`, and the decoder reads them."""
    for size in SIZES:
        for channels in (1, 3):
            encoder, decoder = network.encoder(channels), network.decoder(channels)
            latents = encoder(torch.randn(2, channels, *size))
            assert latents.shape == (2, encoder.dim, *network.grid(*size))
            images = decoder(torch.randn(2, decoder.dim, *network.grid(*size)), size)
            assert images.shape == (2, channels, *size)


def impossible_sizes_are_refused(network: Network) -> None:
    """A size below 1 is a UserError that names the size and a possible one."""
    for size in ((0, 32), (32, 0), (-32, 32)):
        with refusal(f"{size[0]}x{size[1]}.*use"):
            network.grid(*size)


def last_layer_is_a_parameter_of_the_decoder(network: Network) -> None:
    """Adaptive weights of losses compare gradients at `last_layer`."""
    decoder = network.decoder(4)
    assert any(parameter is decoder.last_layer for parameter in decoder.parameters())


def last_layer_writes_the_pixels(network: Network) -> None:
    """With a last layer of zeros, no pixel depends on the latents."""
    decoder = network.decoder(3)
    with torch.no_grad():
        decoder.last_layer.zero_()
    images = decoder(torch.randn(2, decoder.dim, *network.grid(32, 48)), (32, 48))
    assert torch.equal(images[0], images[1])


def configs_are_values(network: Network) -> None:
    """A network is a frozen dataclass: equal arguments make equal configs."""
    again = type(network)(**vars(network))
    assert network == again and hash(network) == hash(again)


def defaults_build(network: Network) -> None:
    """Every argument has a default."""
    type(network)()


def one_step_trains(network: Network) -> None:
    """Gradients of one step reach every parameter of an autoencoder."""
    train_one_step(network, VectorQuantizer(16, 4), (32, 48), 3)


def codes_decode_to_the_reconstruction(network: Network) -> None:
    """Decoding an image's codes gives its reconstruction."""
    compare_decoded(network, VectorQuantizer(16, 4), (64, 32))
