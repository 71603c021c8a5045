"""Shares of classes for a limit, repetition of rare ones, and classes without a training image."""

import numpy as np
import pytest

from genstack.data import ImageData
from genstack.data.classes import balance_classes, find_untrained, share_of_each
from genstack.data.split import hash_key
from genstack.errors import UserError

LABELS = np.array([0] * 40 + [1] * 9 + [2] + [4] * 30)


@pytest.mark.parametrize("limit", [1, 3, 4, 5, 17, 79, 80])
def test_limit_keeps_class_proportions(limit):
    chosen = share_of_each(LABELS, limit)
    assert len(chosen) == limit and (np.diff(chosen) > 0).all()
    shares = limit * np.bincount(LABELS) / len(LABELS)
    counts = np.bincount(LABELS[chosen], minlength=5)
    assert (abs(counts - shares) <= 1 + 2 * (limit < 8)).all()
    if limit >= 4:
        assert {*LABELS[chosen]} == {0, 1, 2, 4}
    for label in range(5):  # the first ones of each
        assert (chosen[LABELS[chosen] == label] == np.flatnonzero(label == LABELS)[: counts[label]]).all()


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_balance_repeats_rare_classes(balance):
    indices = balance_classes(LABELS, balance)
    counts, most = np.bincount(LABELS), 40
    expected = [round(n * (most / n) ** balance) if n else 0 for n in counts]
    assert np.bincount(LABELS[indices]).tolist() == expected
    repeats = np.bincount(indices, minlength=len(LABELS))
    assert repeats.min() >= 1
    for label in (0, 1, 2, 4):  # no image of a class comes twice more often than another
        assert np.ptp(repeats[label == LABELS]) <= 1


def test_untrained_classes_are_found():
    def labels(numbers):
        return LABELS[np.asarray(numbers)]

    assert find_untrained(labels, range(80), 5) == (3,)
    assert find_untrained(labels, range(40), 5) == (1, 2, 3, 4)


@pytest.fixture
def folder(tmp_path, picture_file):
    """40 pictures of one class, and one of another, which is laid aside for validation."""
    rare = next(n for n in range(1000) if hash_key(f"rare/{n}.png") < 0.05)
    for name in [*(f"common/{n}.png" for n in range(40)), f"rare/{rare}.png"]:
        picture_file(tmp_path / name)
    return str(tmp_path)


@pytest.fixture
def picture_file():
    from PIL import Image

    def make(path):
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9)).save(path)

    return make


def test_classes_without_a_training_image_are_named(folder):
    data = ImageData(folder, 8, labels="folder")
    assert data.untrained == data.info.untrained == (1,)
    assert data.notices() == ["1 of 2 classes have no training image, sampled only by name: rare"]
    assert data.notices()[0] in data.report()
    assert ImageData(folder, 8).notices() == []


def test_a_limit_keeps_every_class(folder):
    data = ImageData(folder, 8, labels="folder", limit=10)
    assert len(data.numbers) == 10 and data.split.images == 10
    assert sorted(data.catalog.labels_of(data.numbers)) == [0] * 9 + [1]
    assert {*data.split.training} | {*data.split.validation} == {*data.numbers}
    assert [*ImageData(folder, 8, limit=10).numbers] == [*range(10)]
    assert [*ImageData(folder, 8, labels="folder", limit=50).numbers] == [*range(41)]


def test_balance_affects_only_training(folder):
    plain, even = (ImageData(folder, 8, labels="folder", validation=0.3, balance=b) for b in (0.0, 1.0))
    assert plain.training_numbers is plain.split.training and even.split == plain.split
    labels = even.catalog.labels_of(even.training_numbers)
    assert {*even.training_numbers} == {*plain.split.training} and len({*np.bincount(labels)} - {0}) == 1
    with pytest.raises(UserError, match=r"balance 1\.0 needs classes"):
        ImageData(folder, 8, balance=1.0).training_loader()
    with pytest.raises(UserError, match="from 0 to 1"):
        ImageData(folder, 8, balance=2.0)
