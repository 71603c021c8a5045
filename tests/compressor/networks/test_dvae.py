"""DALL-E's network against the package that publishes its weights.

`tests/golden/openai_dvae/` are encoder and decoder as the package `dall_e` (OpenAI) pickles them, with random
weights; the `.npz` beside it is what that package computes from them, for images in [0, 1].
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from genstack.checkpoints.published import load
from genstack.compressor import DVAE
from genstack.errors import UserError

GOLDEN = Path(__file__).parents[2] / "golden"
CLOSE = {"atol": 5e-5, "rtol": 1e-4}
PLAN = DVAE(width=12, entrance=16)


@pytest.fixture
def published():
    """The model of the golden files."""
    return load(GOLDEN / "openai_dvae").compressor


def test_published_models_match_golden_values(published):
    golden = {key: torch.from_numpy(array) for key, array in np.load(GOLDEN / "openai_dvae.npz").items()}
    images, codes = golden["images"] * 2 - 1, golden["codes"].flatten(1)
    layout = published.layout(32, 32)
    assert published.network == PLAN
    with torch.no_grad():
        features = published.latents(images)
        logits = published.quantizer.logits(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        torch.testing.assert_close(logits, golden["latents_before_quantization"], **CLOSE)
        assert torch.equal(published.encode(images), codes)
        made = published(images)
        torch.testing.assert_close(made.decoder_output, golden["decoder_statistics"], **CLOSE)
        reconstruction = (made.images.clamp(-1, 1) + 1) / 2
        torch.testing.assert_close(reconstruction, golden["reconstruction"], **CLOSE)
        random = published.decode(golden["random_codes"].flatten(1), layout)
        torch.testing.assert_close(
            (random.clamp(-1, 1) + 1) / 2, golden["decoded_from_random_codes"], **CLOSE
        )


def test_defaults_match_the_published_model():
    """53,786,240 + 43,829,766 parameters in encoder.pkl and decoder.pkl, 8192 codes on either side."""
    with torch.device("meta"):
        encoder, decoder = DVAE().encoder(3), DVAE().decoder(6)
    count = sum(parameter.numel() for parameter in encoder.parameters())
    assert count + 8192 * 2048 + 8192 == 53_786_240
    count = sum(parameter.numel() for parameter in decoder.parameters())
    assert count - 2048 * 128 + 8192 * 128 == 43_829_766


def test_residual_branches_begin_at_zero_and_are_scaled_by_the_gain():
    features = torch.randn(2, 8, 6, 10)

    def branch(gain: float | None) -> torch.Tensor:
        torch.manual_seed(0)
        block = DVAE(width=8, gain=gain).encoder(3).levels[0][0]
        assert torch.equal(block(features), features)
        torch.nn.init.ones_(block.convolutions[-1].weight)
        return block(features) - features

    torch.testing.assert_close(branch(None) * 64, branch(1.0), atol=1e-3, rtol=1e-3)
    assert branch(1.0).abs().max() > 0.1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        *(({"width": 3}, "width 3"), ({"multipliers": (1, 0)}, "multipliers"), ({"blocks": 0}, "blocks 0")),
        ({"gain": 0.0}, "gain 0.0 is out of range; it must be above 0, or null"),
    ],
)
def test_invalid_settings_are_rejected(wrong, message):
    with pytest.raises(UserError, match=message):
        DVAE(**wrong)
