"""DiffAugment: effects on images, and gradients."""

import pytest
import torch

from genstack.losses.adversary import Adversary
from genstack.losses.diff_augment import DiffAugment, cut_out, intervals, recolour, translate
from genstack.losses.patchgan import PatchGAN


@pytest.fixture
def images():
    return torch.rand(64, 3, 12, 20) * 2 - 1


def test_colour_order_is_brightness_saturation_contrast(images):
    """Each image by the same line for all its pixels, with numbers from the paper's ranges."""
    found = recolour(images, 1.0)
    for image, varied in zip(images, found, strict=True):
        grey, spread = image.mean(0, keepdim=True), image - image.mean(0, keepdim=True)
        centred = grey - grey.mean()
        contrast = ((varied.mean(0, keepdim=True) - varied.mean()) * centred).sum() / centred.square().sum()
        saturation = ((varied - varied.mean(0)) * spread).sum() / spread.square().sum() / contrast
        brightness = varied.mean() - image.mean()
        assert 0.5 <= contrast <= 1.5 and 0 <= saturation <= 2 and -0.5 <= brightness <= 0.5
        truth = image.mean() + brightness + contrast * (centred + saturation * spread)
        torch.testing.assert_close(varied, truth, atol=1e-5, rtol=1e-4)
    shift = found.mean((1, 2, 3)) - images.mean((1, 2, 3))
    assert shift.min() < -0.4 and shift.max() > 0.4 and len(shift.unique()) == 64


def test_half_strength_colour_keeps_transparency(images):
    clear = torch.cat([images, torch.rand(64, 1, 12, 20)], 1)
    found = recolour(clear, 0.5)
    assert torch.equal(found[:, 3:], clear[:, 3:])
    assert (found.mean((2, 3))[:, :3] - clear.mean((2, 3))[:, :3]).mean(1).abs().max() <= 0.25 + 1e-6
    assert recolour(images[:, :1], 1.0).shape == (64, 1, 12, 20)


def test_translation_shifts_by_whole_pixels(images):
    """By at most an eighth of each side: two rows of 12, three columns of 20."""
    found, shifts = translate(images, 0.125), set()
    for image, moved in zip(images, found, strict=True):
        matches = []
        for down in range(-2, 3):
            for right in range(-3, 4):
                truth = torch.zeros_like(image)
                rows, columns = (
                    slice(max(0, down), 12 + min(0, down)),
                    slice(max(0, right), 20 + min(0, right)),
                )
                source = image[:, max(0, -down) : 12 - max(0, down), max(0, -right) : 20 - max(0, right)]
                truth[:, rows, columns] = source
                matches += [(down, right)] * torch.equal(truth, moved)
        assert len(matches) == 1
        shifts.add(matches[0])
    assert len(shifts) > 15 and max(map(max, shifts)) == 3 and {down for down, _ in shifts} == {*range(-2, 3)}


@pytest.mark.parametrize(("side", "length"), [(12, 6), (13, 6), (13, 7), (5, 5)])
def test_cutout_intervals_may_cross_the_edge(side, length):
    for row in intervals(200, side, length):
        places = row.nonzero().flatten()
        assert 0 < len(places) <= length and torch.equal(
            places, torch.arange(places[0], places[0] + len(places))
        )
        assert len(places) == length or places[0] == 0 or places[-1] == side - 1
        assert len(places) >= length // 2


def test_cutout_paints_grey_squares_only(images):
    found = cut_out(images, 0.5)
    kept = found == images
    assert (found[~kept] == 0).all() and torch.equal(kept, kept[:, :1].expand_as(kept))
    holes = 1 - kept[:, 0].float().mean((1, 2))
    assert 0.05 < holes.min() < holes.max() == 0.25


def test_gradients_follow_pixels(images):
    images.requires_grad_()
    DiffAugment(colour=0.0)(images).sum().backward()
    assert set(images.grad.unique().tolist()) == {0.0, 1.0}
    images.grad = None
    DiffAugment()(images).square().sum().backward()
    assert images.grad.isfinite().all() and images.grad.any()


def test_zero_strength_changes_nothing(images):
    assert DiffAugment(colour=0.0, translation=0.0, cutout=0.0)(images) is images


def test_augmentation_follows_the_random_seed(images):
    def drawn(seed):
        torch.manual_seed(seed)
        return DiffAugment()(images)

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))


def test_both_losses_see_augmented_images(images, monkeypatch):
    seen = []
    adversary = Adversary(3, PatchGAN(4, 1), augmentation=DiffAugment())
    monkeypatch.setattr(DiffAugment, "__call__", lambda self, pixels: seen.append(pixels) or pixels)
    adversary.discriminator_loss(images, -images)
    adversary.generator_loss(images / 2)
    for pixels, truth in zip(seen, (images, -images, images / 2), strict=True):
        assert torch.equal(pixels, truth)


@pytest.mark.parametrize("wrong", [{"colour": 1.5}, {"translation": -0.1}, {"cutout": 2.0}])
def test_invalid_arguments_are_rejected(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} .* out of range"):
        DiffAugment(**wrong)
