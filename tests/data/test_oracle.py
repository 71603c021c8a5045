"""The oracle reads what was drawn, also from noisy and blurred pictures."""

from functools import cache

import pytest
import torch
from torch.nn import functional

from genstack.data.images import Preprocessing
from genstack.data.oracle import ShapeOracle, prototype
from genstack.data.sources.shapes import ShapesSource

COUNT = 120


@cache
def drawn(name, height, width):
    source, preprocessing = ShapesSource(name), Preprocessing(3, height, width)
    images = [preprocessing.to_model(source.image(number, preprocessing)) for number in range(COUNT)]
    return torch.stack(images), [source.scene(number).things for number in range(COUNT)]


def clean(images):
    return images


def noisy(images):
    return images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def blurred(images):
    return functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "harm", "least"),
    [
        ("shapes", (32, 32), clean, 0.99),
        ("shapes", (64, 64), clean, 0.99),
        ("shapes", (48, 40), clean, 0.99),
        ("shapes", (32, 32), noisy, 0.97),
        ("shapes", (32, 32), blurred, 0.97),
        ("shapes:pairs", (32, 32), clean, 0.99),
        ("shapes:pairs", (64, 64), clean, 0.99),
        ("shapes:pairs", (64, 64), noisy, 0.97),
        ("shapes:pairs", (64, 64), blurred, 0.97),
    ],
)
def test_oracle_recognizes_drawn_shapes(name, size, harm, least):
    images, scenes = drawn(name, *size)
    read = 0
    for seen, things in zip(ShapeOracle()(harm(images)), scenes, strict=True):
        names = {thing.name: thing for thing in things}
        if {found.name for found in seen} != set(names) or len(seen) != len(things):
            continue
        read += all(
            abs(found.row - names[found.name].row) < 0.02
            and abs(found.column - names[found.name].column) < 0.02
            for found in seen
        )
    assert read / COUNT >= least


def test_labels_agree_with_the_source():
    images, _ = drawn("shapes", 32, 32)
    truth = torch.tensor([ShapesSource("shapes").label(number) for number in range(COUNT)])
    assert (ShapeOracle().labels(images) == truth).float().mean() >= 0.99


def test_empty_picture_has_no_shapes():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 3, 32, 40, generator=generator) * 0.1 - 0.7
    assert ShapeOracle()(images) == [(), (), ()]
    assert ShapeOracle().labels(images).tolist() == [-1, -1, -1]


def test_moments_agree_with_closed_forms():
    """Spreads: 1 for a disc, pi / 3 for a square, 2 pi / (3 sqrt 3) for a triangle, 5 / 3 for the ring."""
    spreads = {"circle": 1.0, "square": torch.pi / 3, "triangle": 2 * torch.pi / 27**0.5, "ring": 5 / 3}
    for shape, spread in spreads.items():
        assert prototype(shape)[0] == pytest.approx(spread, rel=1e-3)
    assert prototype("square")[2] == pytest.approx(4 * torch.pi**2 / 60, rel=1e-2)
