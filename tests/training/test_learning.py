"""Learning speed of the default network on a small problem, above what torch's own initial weights reach."""

import pytest
import torch

from genstack.compressor import Autoencoder
from genstack.compressor.networks.convolutional import Convolutional
from genstack.compressor.quantizers import VectorQuantizer
from genstack.data import ImageData
from genstack.losses.fidelity import psnr
from genstack.losses.reconstruction import L1
from genstack.training.optimization import Optimization

STEPS = 100


def learned(optimization: Optimization) -> float:
    """Held-out PSNR on `shapes` after a short run."""
    torch.manual_seed(0)
    network = Convolutional(dim=32, width=8, multipliers=(1, 2, 4), attention=(2,))
    model = Autoencoder(3, network, VectorQuantizer(256))
    data = ImageData("shapes", 16, seed=0)
    images = data.examples("training", 256).images
    optimizer, schedule = optimization.optimizer([model], STEPS)
    for _ in range(STEPS):
        batch = images[torch.randint(len(images), (16,))]
        made = model.train()(batch)
        loss = L1()(made.images, batch) + sum(made.losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        model.after_step(skipped=False)
    held_out = data.examples("validation", 64).images
    with torch.no_grad():
        return float(psnr(held_out, model.eval()(held_out).images).mean())


@pytest.mark.nightly
def test_default_network_learns_quickly():
    """17.1 dB, and 15.2 dB with the initial weights that torch gives convolutions."""
    assert learned(Optimization(learning_rate=2e-4, betas=(0.5, 0.9))) > 16.2
