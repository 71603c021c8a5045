"""PSNR and SSIM against scikit-image and torchmetrics."""

import math

import pytest
import torch
from einops import rearrange
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from genstack.data.images import from_uint8, to_uint8
from genstack.losses.fidelity import psnr, ssim


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_psnr_matches_saved_images(channels):
    images = torch.rand(3, channels, 5, 9) * 2 - 1
    others = (images + 0.1 * torch.randn_like(images)) * 1.1  # some of it outside of [-1, 1]
    expected = [
        peak_signal_noise_ratio(one, other, data_range=255)
        for one, other in zip(to_uint8(images).numpy(), to_uint8(others).numpy(), strict=True)
    ]
    torch.testing.assert_close(psnr(images, others), torch.tensor(expected, dtype=torch.float32))


def test_psnr_of_one_level():
    dark = from_uint8(torch.full((1, 4, 6, 1), 7, dtype=torch.uint8))
    light = from_uint8(torch.full((1, 4, 6, 1), 8, dtype=torch.uint8))
    assert float(psnr(dark, light)) == pytest.approx(20 * math.log10(255))
    assert psnr(dark, dark + 1e-4).isinf().all(), "what rounds to the same byte is the same"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("noise", [0.02, 0.5])
def test_ssim_matches_scikit_image_and_torchmetrics(channels, noise):
    images = torch.rand(2, channels, 17, 23) * 2 - 1
    others = images + noise * torch.randn_like(images)
    pictures = [to_uint8(each) for each in (images, others)]
    expected = [
        structural_similarity(
            one.numpy(),
            other.numpy(),
            channel_axis=-1,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for one, other in zip(*pictures, strict=True)
    ]
    torch.testing.assert_close(ssim(images, others), torch.tensor(expected).float(), rtol=0, atol=1e-4)
    planes = [rearrange(each, "b h w c -> b c h w").double() for each in pictures]
    _, theirs = structural_similarity_index_measure(
        *planes, data_range=255.0, reduction="none", return_full_image=True
    )
    inside = theirs[..., 5:-5, 5:-5].mean((1, 2, 3))  # torchmetrics counts the mirrored border, too
    torch.testing.assert_close(ssim(images, others), inside.float(), rtol=0, atol=1e-4)


def test_ssim_of_equal_and_of_tiny_images():
    images = torch.rand(2, 3, 11, 12) * 2 - 1
    torch.testing.assert_close(ssim(images, images), torch.ones(2))
    with pytest.raises(ValueError, match="11 x 11 pixels or more, got 10 x 12"):
        ssim(images[:, :, :10], images[:, :, :10])
