"""MaskGIT's network against the project that reads its published weights.

`tests/golden/maskgit_vqgan.safetensors` are the tensors, random, of a file as 1d-tokenizer (ByteDance) reads
it; the `.npz` beside it is what the code of that project computes from them, for images in [0, 1].
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from genstack.checkpoints.published import load
from genstack.compressor import Autoencoder, MaskGITNetwork
from genstack.compressor.quantizers import VectorQuantizer
from genstack.errors import UserError

GOLDEN = Path(__file__).parents[2] / "golden"
CLOSE = {"atol": 5e-6, "rtol": 1e-4}


@torch.no_grad()
def test_published_models_match_golden_values():
    published = load(GOLDEN / "maskgit_vqgan.safetensors").compressor
    assert published.network == MaskGITNetwork(dim=10, width=32, multipliers=(1, 2, 1), blocks=1, unit=True)
    golden = {key: torch.from_numpy(array) for key, array in np.load(GOLDEN / "maskgit_vqgan.npz").items()}
    images, codes, layout = golden["images"] * 2 - 1, golden["codes"].flatten(1), published.layout(32, 32)
    torch.testing.assert_close(published.latents(images), golden["latents_before_quantization"], **CLOSE)
    assert torch.equal(published.encode(images), codes)
    made = (published(images).images + 1) / 2
    torch.testing.assert_close(made, golden["reconstruction_unclamped"], **CLOSE)
    random = (published.decode(golden["random_codes"].flatten(1), layout).clamp(-1, 1) + 1) / 2
    torch.testing.assert_close(random, golden["decoded_from_random_codes"], **CLOSE)


def test_defaults_match_the_published_model():
    """54,515,587 numbers in the published file, 1024 codes of 256 among them."""
    with torch.device("meta"):
        model = Autoencoder(3, MaskGITNetwork(), VectorQuantizer(1024, 256, normalize=False), projection=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == 54_515_587


def test_downsampling_by_convolution():
    plan = MaskGITNetwork(dim=6, width=8, multipliers=(1, 2), blocks=1, downsampling="convolution")
    average = MaskGITNetwork(dim=6, width=8, multipliers=(1, 2), blocks=1)
    more = set(plan.encoder(3).state_dict()) - set(average.encoder(3).state_dict())
    assert more == {"downsamples.0.conv.weight", "downsamples.0.conv.bias"}
    assert plan.encoder(3)(torch.rand(1, 3, 10, 14)).shape == (1, 6, 5, 7)


def test_activation_checkpointing_keeps_gradients():
    gradients = []
    for checkpoint in (False, True):
        torch.manual_seed(0)
        plan = MaskGITNetwork(dim=6, width=8, multipliers=(1, 2), blocks=1, checkpoint=checkpoint)
        encoder, decoder = plan.encoder(3), plan.decoder(3)
        decoder(encoder(torch.randn(2, 3, 10, 14)), (10, 14)).square().mean().backward()
        gradients.append([p.grad for p in (*encoder.parameters(), *decoder.parameters())])
    torch.testing.assert_close(*gradients, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"width": 0}, "width 0"), ({"multipliers": ()}, "multipliers"), ({"downsampling": "max"}, "'max'")],
)
def test_invalid_settings_are_rejected(wrong, message):
    with pytest.raises((UserError, TypeError), match=message):
        MaskGITNetwork(**wrong)
