"""Finite scalar quantization: the formula of the paper, and one code per combination of levels."""

from itertools import product

import numpy as np
import pytest
import torch

from genstack.compressor.quantizers import FSQ


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (3, 4), (7,)])
def test_every_combination_of_levels_is_a_code(levels):
    quantizer = FSQ(levels)
    layout = quantizer.layout((8, 8), 1, quantizer.codebook_size)
    vectors = quantizer.lookup(torch.arange(quantizer.codebook_size)[None], layout)[0, :, 0].T
    middles = [count // 2 for count in levels]
    digits = product(*[range(count) for count in levels[::-1]])  # the first channel turns fastest
    expected = [
        [(digit - middle) / middle for digit, middle in zip(row[::-1], middles, strict=True)]
        for row in digits
    ]
    torch.testing.assert_close(vectors, torch.tensor(expected))


@pytest.mark.parametrize("levels", [(8, 5, 6), (3, 4, 7)])
def test_latents_round_to_the_nearest_level(levels):
    latents = (4 * torch.randn(2, 3, 9, 7)).double()
    quantized = FSQ(levels)(latents.float())
    for channel, count in enumerate(levels):
        reach = (count - 1) * 1.001 / 2
        offset = 0 if count % 2 else 0.5
        bounded = np.tanh(latents[:, channel].numpy() + np.arctanh(offset / reach)) * reach - offset
        values = np.arange(count) - count // 2
        nearest = values[np.abs(bounded[..., None] - values).argmin(-1)]
        np.testing.assert_allclose(quantized.latents[:, channel].numpy(), nearest / (count // 2), atol=1e-6)
        assert set(nearest.flatten()) == set(values), "latents of this spread reach every level"


def test_gradient_matches_the_bound():
    quantizer = FSQ((5, 7))
    latents, weights = torch.randn(2, 2, 3, 5, requires_grad=True), torch.randn(2, 2, 3, 5)
    (quantizer(latents).latents * weights).sum().backward()
    reach, half = torch.tensor([2.002, 3.003]), torch.tensor([2.0, 3.0])
    slope = (1 - latents.detach().tanh().square()) * (reach / half)[:, None, None]
    torch.testing.assert_close(latents.grad, weights * slope)


def test_zero_maps_to_the_middle_level():
    assert FSQ((8, 5, 4))(torch.zeros(1, 3, 1, 1)).latents.abs().max() == 0


def test_non_finite_latents_stay_in_range():
    latents = torch.tensor([torch.inf, -torch.inf, 1e30, -1e30])[None, :, None, None]
    codes = FSQ()(latents).codes
    assert codes.tolist() == [[7 + 8 * 0 + 40 * 4 + 200 * 0]]


@pytest.mark.parametrize("levels", [(), (8, 2), (1,), (1000,) * 4])
def test_invalid_levels_are_rejected(levels):
    with pytest.raises(ValueError, match="levels"):
        FSQ(levels)
