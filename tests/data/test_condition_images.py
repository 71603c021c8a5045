"""Condition images lie over their images, whatever the suffix, the size and the variation."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from genstack.data import ImageData
from genstack.data.condition_images import FileIndex
from genstack.data.scene import COLOURS
from genstack.data.sources.folder import FolderSource
from genstack.data.transforms import Augmentation

VARIED = Augmentation(crop="random", zoom=(1.0, 2.0), flip=0.5)


def picture(path, height, width, seed):
    """Smooth noise, so that a scaled copy is much the same picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def folders(tmp_path):
    for number in range(8):
        picture(tmp_path / "images" / "a" / f"{number}.png", 40, 60, number)
        picture(tmp_path / "maps" / "a" / f"{number}.bmp", 80, 120, number)
    return tmp_path


def data(folders, **options):
    options = {"resolution": "16,24", "batch_size": 6, "validation": 0.2, "augmentation": VARIED} | options
    return ImageData(str(folders / "images"), condition_images=str(folders / "maps"), **options)


def test_condition_image_is_cropped_like_its_image(folders):
    batch = next(iter(data(folders).training_loader()))
    assert batch.condition_images.shape == batch.images.shape
    apart = (batch.condition_images - batch.images).abs().mean()
    mirrored = (batch.condition_images.flip(-1) - batch.images).abs().mean()
    assert apart < 0.03 < 4 * apart < mirrored
    assert torch.equal(batch.inputs.images, batch.condition_images)


@pytest.mark.parametrize("hashes", ["as they are", "all alike"])
def test_pictures_are_found_by_name_despite_equal_hashes(folders, monkeypatch, hashes):
    if hashes == "all alike":
        monkeypatch.setattr("genstack.data.condition_images.hash_name", lambda name: 2**64 - 1)
    picture(folders / "maps" / "a" / "3.png", 4, 6, 3)  # beside 3.bmp
    folder = FolderSource(str(folders / "maps"))
    find = FileIndex(folder)
    last = {folder.key(number).rpartition(".")[0]: number for number in range(9)}
    assert len(last) == 8 and {name: find(name) for name in last} == last
    assert find("a") is None and find("3") is None and find("a/3.png") is None


def test_index_takes_16_bytes_per_picture(folders):
    find = FileIndex(FolderSource(str(folders / "maps")))
    assert find.hashes.nbytes + find.order.nbytes == 16 * 8


def test_image_is_its_own_condition_by_default(folders):
    batch = ImageData(str(folders / "images"), "16,24").examples("training", 3)
    assert batch.condition_images is None and torch.equal(batch.inputs.images, batch.images)


def test_batches_have_crop_coordinates(folders):
    of = data(folders, augmentation=Augmentation(crop="random", zoom=(1.0, 3.0), flip=0.5))
    samples = of.samples(of.split.training, of.augmentation)
    seen = set()
    for epoch in range(12):
        sample = samples[epoch, 0]
        whole = of.preprocessing.to_model(of.catalog.image(of.split.training[0], of.preprocessing))
        top, left, bottom, right = (
            round(float(edge) * side) for edge, side in zip(sample.crops[0], (40, 60, 40, 60), strict=True)
        )
        ways = [
            functional.interpolate(
                way[None, :, top:bottom, left:right], (16, 24), mode="bicubic", antialias=True
            )
            for way in (whole, whole.flip(-1))
        ]
        assert min((way.clamp(-1, 1) - sample.images[0]).abs().max() for way in ways) < 1e-4
        seen.add((top, left, bottom, right))
    assert len(seen) > 6


@pytest.mark.slow
def test_shapes_have_segmentation_maps():
    of = ImageData("shapes", 24, condition_images="own", limit=12)
    batch = of.examples("training", 4)
    for number, segments in zip(of.split.training, batch.condition_images, strict=False):
        colour = of.catalog.scene(number).things[0].colour
        found = {tuple(pixel) for pixel in ((segments + 1) / 2 * 255).round().flatten(1).T.int().tolist()}
        assert found == {(0, 0, 0), tuple(round(share * 255) for share in COLOURS[colour])}
    assert ImageData("shapes", 24, limit=12).info.crops_vary is False
    assert ImageData("shapes", 24, limit=12, augmentation=VARIED).info.crops_vary


def test_errors_explain_mistakes(folders):
    with pytest.raises(ValueError, match="condition_images nowhere not found"):
        ImageData(str(folders / "images"), condition_images="nowhere").examples("training", 1)
    picture(folders / "maps" / "a" / "0.bmp", 90, 90, 0)
    (folders / "maps" / "a" / "1.bmp").unlink()
    of = data(folders, batch_size=8)
    samples = of.samples(range(8))
    skipped = samples[0, 0].skipped
    assert "is 90 x 90, but the picture is 40 x 60; give both the same proportions" in skipped["a/0.png"]
    assert "a/1.png has no condition image" in skipped["a/1.png"]
    digits = ImageData("digits", 8, 1, condition_images="own").samples([0])
    with pytest.raises(ValueError, match="no condition image of its own; name a folder"):
        digits[0, 0]
