"""Laws of a network and a quantizer together."""

import torch

from genstack.compressor import Autoencoder, Network, Quantizer


def train_one_step(network: Network, quantizer: Quantizer, size: tuple[int, int], channels: int) -> None:
    """Check that gradients of one step reach every parameter."""
    model = Autoencoder(channels, network, quantizer)
    images = torch.rand(2, channels, *size) * 2 - 1
    reconstruction = model(images)
    loss = (reconstruction.images - images).square().mean() + sum(reconstruction.losses.values())
    loss.backward()
    model.after_step(skipped=False)
    assert reconstruction.images.shape == images.shape
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    gradient = model.last_layer.grad
    assert gradient is not None and gradient.abs().sum() > 0


@torch.no_grad()
def compare_decoded(network: Network, quantizer: Quantizer, size: tuple[int, int]) -> None:
    """Check that decoding an image's codes gives its reconstruction."""
    model = Autoencoder(3, network, quantizer).eval()
    images = torch.rand(2, 3, *size) * 2 - 1
    reconstruction, codes, layout = model(images), model.encode(images), model.layout(*size)
    assert torch.equal(codes, reconstruction.codes)
    assert codes.shape == (2, layout.length)
    torch.testing.assert_close(model.decode(codes, layout), reconstruction.images, atol=1e-4, rtol=0)
