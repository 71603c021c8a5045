"""Loaders of images from settings: resume, purity, unreadable files, limits."""

import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genstack.data import Batch, ImageData
from genstack.data.transforms import Augmentation
from genstack.errors import UserError

FILES = Path(__file__).parents[1] / "golden" / "images"
VARIED = Augmentation(crop="random", zoom=(1.0, 1.4), flip=0.5, rotate=10.0, shift=0.1)


@pytest.fixture
def folder(tmp_path):
    """21 pictures that can be told apart, of unequal sizes, in three folders."""
    chance = np.random.default_rng(0)
    for i in range(21):
        path = tmp_path / "set" / f"class {i % 3}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (20 + i, 31, 3), np.uint8)).save(path)
    return tmp_path / "set"


def data(source, **options):
    options = {"resolution": "12,10", "labels": "folder", "batch_size": 4, "validation": 0.2, **options}
    return ImageData(str(source), **options)


def images(loader, count):
    return torch.cat([batch.images for batch in islice(loader, count)])


def test_batches(folder):
    batch = next(iter(data(folder).training_loader()))
    assert batch.images.shape == (4, 3, 12, 10) and batch.images.dtype == torch.float32
    assert batch.images.min() >= -1 and batch.images.max() <= 1
    assert batch.labels.dtype == torch.int64 and batch.skipped == {}


def test_training_resumes_mid_epoch_with_any_workers(folder):
    """Steps 0 to 9 in one go are steps 0 to 3, then 4 to 9 of a new process, with any number of workers."""
    whole = images(data(folder, augmentation=VARIED).training_loader(), 10)
    for workers in (0, 2):
        loader = data(folder, augmentation=VARIED, workers=workers).training_loader(start=4 * 4)
        assert torch.equal(images(loader, 6), whole[16:])


def test_two_processes_read_the_batches_of_one(folder):
    whole = images(data(folder, augmentation=VARIED).training_loader(batch_size=6), 3)
    parts = [images(data(folder, augmentation=VARIED).training_loader(0, 3, rank, 2), 3) for rank in (0, 1)]
    shared = [part[3 * step : 3 * step + 3] for step in range(3) for part in parts]
    assert torch.equal(torch.cat(shared), whole)


def test_loaders_do_not_use_the_global_generator(folder):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    images(data(folder, augmentation=VARIED).training_loader(), 3)
    list(data(folder).validation_loader())
    assert torch.equal(torch.rand(3), expected)


def test_labels_follow_their_images(folder):
    of = data(folder)
    assert of.class_names == ("class 0", "class 1", "class 2")
    known = of.examples("training")
    for batch in islice(of.training_loader(), 6):
        for image, label in zip(batch.images, batch.labels, strict=True):
            match = (known.images == image).flatten(1).all(1).nonzero().item()
            assert known.labels[match] == label
    assert sorted(known.labels.unique().tolist()) == [0, 1, 2]


def test_validation_is_every_image_once_in_order(folder):
    of = data(folder)
    whole = of.examples("validation").images
    assert len(whole) == len(of.split.validation) > 2
    batches = list(of.validation_loader(batch_size=2))
    assert torch.equal(torch.cat([batch.images for batch in batches]), whole)
    ranks = [images(of.validation_loader(rank=rank, processes=2), 9) for rank in (0, 1)]
    assert torch.equal(ranks[0], whole[::2]) and torch.equal(ranks[1], whole[1::2])


def test_an_unreadable_file_is_replaced_and_named_once(folder):
    of = data(folder, validation=0.0)
    broken = folder / of.catalog.key(of.split.training[3])
    good = of.examples("training").images
    shutil.copy(FILES / "truncated.png", broken)
    of = data(folder, validation=0.0)
    with pytest.warns(UserWarning, match=broken.name) as warned:
        read = images(of.training_loader(), 10)
    assert len(warned) == 1
    good = torch.cat([good[:3], good[4:]])
    assert all((good == image).flatten(1).all(1).any() for image in read)


def test_too_many_unreadable_files_are_an_error(folder):
    of = data(folder)
    for number in of.split.training[:3]:
        (folder / of.catalog.key(number)).write_text("no picture")
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(UserError, match="5%") as error:
        images(data(folder).training_loader(), 10)
    assert sum(of.catalog.key(number) in str(error.value) for number in of.split.training[:3]) >= 2


def test_no_readable_image_is_an_error(tmp_path):
    (tmp_path / "a.png").write_text("a")
    (tmp_path / "b.png").write_text("b")
    with pytest.raises(UserError, match="none of 1 images"):
        next(iter(data(tmp_path, labels="none").training_loader()))


def test_a_single_image_trains(tmp_path):
    shutil.copy(FILES / "plain_reference.png", tmp_path)
    with pytest.warns(UserWarning, match="only one image"):
        of = data(tmp_path, labels="own")
        assert images(of.training_loader(), 3).shape == (12, 3, 12, 10)
    assert len(list(of.validation_loader())) == 1


@pytest.mark.parametrize(
    ("resolution", "size"),
    [(64, (64, 64)), ((48, 64), (48, 64)), ("48,64", (48, 64)), ("48x64", (48, 64)), ("32", (32, 32))],
)
def test_sizes_are_height_first(resolution, size):
    assert ImageData("digits", resolution).size == size


@pytest.mark.parametrize("resolution", ["sixty", "4,5,6", "", 0, "0x4", -3])
def test_invalid_sizes_are_rejected(resolution):
    with pytest.raises(UserError, match="resolution"):
        ImageData("digits", resolution)


def test_limit_and_no_labels(folder):
    of = data(folder, limit=7, labels="none")
    assert len(of.split.training) + len(of.split.validation) == 7
    assert of.class_names == () and of.examples("training").labels.unique().tolist() == [0]


def test_sixteen_bit_folders_keep_their_bits(tmp_path):
    ramp = (np.arange(120, dtype=np.uint16) * 500).reshape(12, 10)
    for name in "ab":
        Image.fromarray(ramp).save(tmp_path / f"{name}.png")
    grey = data(tmp_path, labels="none", channels=1)
    assert grey.preprocessing.bits == 16
    np.testing.assert_array_equal(
        grey.preprocessing.to_file(grey.examples("training").images)[0, ..., 0], ramp
    )
    windowed = data(tmp_path, labels="none", channels=1, window=(1000.0, 2000.0))
    assert windowed.examples("training").images.unique().tolist() == [-1, 0, 1]
    assert data(tmp_path, labels="none").preprocessing.bits == 8


def test_lightning_moves_batches():
    from pytorch_lightning.utilities import move_data_to_device

    batch = Batch(torch.zeros(2, 3, 4, 5), torch.zeros(2, dtype=torch.int64), {"a": "why"})
    moved = move_data_to_device(batch, torch.device("meta"))
    assert moved.images.device.type == moved.labels.device.type == "meta" and moved.skipped == {"a": "why"}


def test_the_report_counts(folder):
    lines = data(folder).report().splitlines()
    assert len(lines) == 4 and "12 x 10" in lines[0]
    assert [line.split(": ")[-1] for line in lines[1:]] == ["7", "7", "7"]


def test_transparent_pictures_are_composited_over_the_background(tmp_path):
    for name in "ab":
        Image.new("RGBA", (9, 7), (200, 0, 0, 0)).save(tmp_path / f"{name}.png")
    seen = data(tmp_path, labels="none", background=(0, 255, 51)).examples("training").images
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.tensor([-1.0, 1.0, -0.6]))
