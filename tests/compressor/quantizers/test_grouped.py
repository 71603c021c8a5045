"""Product quantization against separate quantizers."""

import pytest
import torch

from genstack.compressor.quantizers import Grouped, VectorQuantizer


def test_groups_match_separate_quantizers():
    grouped = Grouped(groups=3, codebook_size=11, dim=6).eval()
    latents = torch.randn(2, 6, 5, 7)
    quantized = grouped(latents)
    codes = quantized.codes.reshape(2, 35, 3)
    commitments = []
    for number in range(3):
        alone = VectorQuantizer(codebook_size=11, dim=2).eval()
        alone.load_state_dict(grouped.tables[number].state_dict())
        channels = slice(2 * number, 2 * number + 2)
        expected = alone(latents[:, channels])
        assert torch.equal(codes[..., number], expected.codes)
        assert torch.equal(quantized.latents[:, channels], expected.latents)
        commitments.append(expected.losses["commitment"])
    torch.testing.assert_close(quantized.losses["commitment"], torch.stack(commitments).mean())


def test_indivisible_channels_are_rejected():
    with pytest.raises(ValueError, match="dim 7 cannot be split into 2 groups"):
        Grouped(groups=2, dim=7)
