"""Product quantization: each group by itself."""

import pytest
import torch

from genstack.compressor.quantizers import Grouped, VectorQuantizer


def test_each_group_is_quantized_by_a_quantizer_of_its_own():
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


def test_channels_that_cannot_be_cut_are_refused():
    with pytest.raises(ValueError, match="dim 7 cannot be split into 2 groups"):
        Grouped(groups=2, dim=7)
