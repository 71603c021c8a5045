"""PSNR against scikit-image."""

import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from genstack.data.images import from_uint8, to_uint8
from genstack.evaluation.fidelity import psnr


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_psnr_is_that_of_the_saved_pictures(channels):
    images = torch.rand(3, channels, 5, 9) * 2 - 1
    others = (images + 0.1 * torch.randn_like(images)) * 1.1  # some of it outside of [-1, 1]
    expected = [
        peak_signal_noise_ratio(one, other, data_range=255)
        for one, other in zip(to_uint8(images).numpy(), to_uint8(others).numpy(), strict=True)
    ]
    torch.testing.assert_close(psnr(images, others), torch.tensor(expected, dtype=torch.float32))


def test_one_level_everywhere():
    dark = from_uint8(torch.full((1, 4, 6, 1), 7, dtype=torch.uint8))
    light = from_uint8(torch.full((1, 4, 6, 1), 8, dtype=torch.uint8))
    assert float(psnr(dark, light)) == pytest.approx(20 * math.log10(255))
    assert psnr(dark, dark + 1e-4).isinf().all(), "what rounds to the same byte is the same"
