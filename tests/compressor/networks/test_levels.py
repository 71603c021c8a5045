"""Initial values of layers between levels: means of pixels, copies, zeros."""

import torch
import torch.nn.functional as F

from genstack.compressor.networks.convolutional import Attention
from genstack.compressor.networks.levels import Downsample, ResidualBlock, Upsample


def test_downsampling_starts_as_the_mean_of_pixels():
    features = torch.randn(2, 6, 8, 10)
    torch.testing.assert_close(Downsample(6)(features), F.avg_pool2d(features, 2))


def test_upsampling_starts_as_copies_of_pixels():
    features = torch.randn(2, 6, 3, 5)
    copies = features.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(Upsample(6)(features), copies)


def test_residual_branches_start_at_zero():
    features = torch.randn(2, 8, 3, 5)
    for part in (ResidualBlock(8, 8, groups=4), Attention(8, groups=4)):
        assert torch.equal(part(features), features)
    wider = ResidualBlock(8, 12, groups=4)
    torch.testing.assert_close(wider(features), wider.shortcut(features))
