"""Any size to the model's size, and variations that depend on seed, epoch and image alone."""

import pytest
import torch
from PIL import Image

from genstack.data.images import Preprocessing
from genstack.data.transforms import (
    Augmentation,
    crop_and_resize,
    load,
    random_resized_crop,
    rotate_and_shift,
)
from genstack.errors import UserError

EVERYTHING = Augmentation(crop="random", zoom=(1.0, 1.5), flip=0.5, rotate=20.0, shift=0.1)


def picture(height=30, width=50):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("size", [(48, 64), (96, 32), (7, 5), (30, 50), (1, 1)])
@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (1, 1), (1, 3000), (3000, 1), (8, 8)])
def test_every_picture_fits_every_size(shape, size):
    image = crop_and_resize(picture(*shape), size)
    assert image.shape == (3, *size) and image.abs().max() <= 1


def test_a_picture_of_the_right_size_stays():
    assert torch.equal(crop_and_resize(picture(), (30, 50)), picture())
    assert torch.equal(Augmentation()(picture(), (30, 50), 0, 0, 0), picture())


def test_the_longer_side_is_cropped_about_the_centre():
    assert torch.equal(crop_and_resize(picture(), (30, 30)), picture()[:, :, 10:40])
    assert torch.equal(crop_and_resize(picture(), (20, 50)), picture()[:, 5:25])


def test_proportions_are_kept():
    """A disc stays as wide as it is tall."""
    down, right = torch.meshgrid(torch.arange(90) - 44.5, torch.arange(200) - 99.5, indexing="ij")
    disc = ((down**2 + right**2).sqrt() < 36).float()[None].repeat(3, 1, 1) * 2 - 1
    seen = crop_and_resize(disc, (30, 30))[0] > 0
    assert seen.any(0).sum() == seen.any(1).sum() == 24


def test_shrinking_averages():
    """Without antialiasing a fine chequerboard turns black, white or striped."""
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 2.0 - 1
    assert crop_and_resize(board[None], (8, 8)).abs().max() < 0.05


def test_rotation_and_shift_agree_with_torchvision():
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    image = torch.nn.functional.avg_pool2d(picture(40, 60), 5, 1)
    ours = rotate_and_shift(image, 15.0, (2.0, -3.0))
    theirs = functional.affine(image, 15.0, [-3, 2], 1.0, [0.0, 0.0], InterpolationMode.BILINEAR)
    torch.testing.assert_close(ours[:, 12:-12, 16:-16], theirs[:, 12:-12, 16:-16], atol=1e-4, rtol=0)


def test_rotation_and_shift_repeat_the_border():
    white = torch.ones(3, 20, 33)
    assert rotate_and_shift(white, 30.0, (7.5, -4.0)).min() > 0.999


def test_augmentation_depends_on_seed_epoch_and_image():
    vary = lambda *numbers: EVERYTHING(picture(), (24, 16), *numbers)  # noqa: E731
    first = vary(0, 0, 0)
    torch.manual_seed(123)
    assert torch.equal(vary(0, 0, 0), first)
    for other in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not torch.equal(vary(*other), first)


def test_augmentation_does_not_use_the_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    EVERYTHING(picture(), (24, 16), 0, 0, 0)
    assert torch.equal(torch.rand(3), expected)


def test_flips_have_the_given_probability():
    flip = Augmentation(flip=0.25)
    mirrored = [torch.equal(flip(picture(), (30, 50), 0, 0, i), picture().flip(-1)) for i in range(800)]
    assert abs(sum(mirrored) / 800 - 0.25) < 0.05


@pytest.mark.parametrize(
    "wrong", [{"zoom": (0.5, 1.0)}, {"zoom": (1.3, 1.0)}, {"flip": 2.0}, {"rotate": -1.0}, {"shift": 1.0}]
)
def test_invalid_augmentation_is_rejected(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Augmentation(**wrong)


def test_load_preprocesses_like_the_model(tmp_path):
    Image.new("RGB", (50, 30), (255, 0, 51)).save(tmp_path / "a.png")
    image = load(tmp_path / "a.png", Preprocessing(3, 12, 10))
    assert image.shape == (3, 12, 10)
    torch.testing.assert_close(image[:, 3, 4], torch.tensor([1.0, -1.0, -0.6]))


@pytest.mark.parametrize("sides", [(30, 50), (64, 64), (1, 200), (200, 3), (1, 1)])
def test_resized_crops_agree_with_torchvision(sides):
    from torchvision.transforms import v2

    theirs = v2.RandomResizedCrop((8, 8), scale=(0.2, 0.9), ratio=(0.6, 1.5))
    for seed in range(40):
        torch.manual_seed(seed)
        drawn = theirs.make_params([torch.zeros(3, *sides)])
        generator = torch.Generator().manual_seed(seed)
        crop = random_resized_crop(sides, (0.2, 0.9), (0.6, 1.5), generator)
        assert crop == tuple(drawn[name] for name in ("top", "left", "height", "width"))


def test_resized_crops_depend_on_seed_epoch_and_image_and_tell_their_edges():
    varied = Augmentation(crop="resized", area=(0.1, 0.5), flip=0.5)
    down, right = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    places = torch.stack([down / 40, right / 60, right * 0]) * 2 - 1
    seen = set()
    for index in range(20):
        image = varied(places, (16, 16), 0, 1, index)
        assert torch.equal(image, varied(places, (16, 16), 0, 1, index))
        top, left, bottom, right_edge = varied.edges((40, 60), (16, 16), 0, 1, index)
        seen.add((top, left, bottom, right_edge))
        middle = ((image[:2].mean((1, 2)) + 1) / 2).tolist()
        flipped = image[1, 0, 0] > image[1, 0, -1]
        column = 1 - (left + right_edge) / 2 if flipped else (left + right_edge) / 2
        assert middle == pytest.approx([(top + bottom) / 2 - 0.5 / 40, column - 0.5 / 60], abs=0.01)
    assert len(seen) == 20 and varied.moves_crop and not Augmentation(flip=0.5).moves_crop


def test_resized_crops_have_no_zoom():
    with pytest.raises(UserError, match="area instead"):
        Augmentation(crop="resized", zoom=(1.0, 1.2))


def test_other_crops_have_no_area_or_proportions():
    for name in ("area", "proportions"):
        with pytest.raises(UserError, match=f"{name} .* does not apply to crop: random; set crop to resized"):
            Augmentation(crop="random", **{name: (0.5, 1.0)})
