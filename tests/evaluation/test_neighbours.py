"""Nearest neighbours against loops in numpy."""

from collections import Counter

import numpy as np
import pytest
import torch

from genstack.evaluation.metrics.neighbours import downsample, near_copies, nearest, vote


@pytest.fixture(scope="module")
def known():
    generator = torch.Generator().manual_seed(7)
    return torch.rand(60, 2, 8, 16, generator=generator) * 2 - 1, torch.arange(60) % 4


def shrunk(images):
    """Means over blocks, 8 x 16 pixels to 4 x 4."""
    values = images.numpy().astype(np.float64)
    return np.stack(
        [
            values[:, :, row : row + 2, column : column + 4].mean((2, 3))
            for row in range(0, 8, 2)
            for column in range(0, 16, 4)
        ],
        axis=-1,
    ).reshape(len(values), -1)


def test_nearest_finds_the_nearest_training_image(known):
    images, _ = known
    others = torch.rand(9, 2, 8, 16) * 2 - 1
    distances = np.sqrt(((shrunk(others)[:, None] - shrunk(images)[None]) ** 2).sum(-1))
    found, numbers = nearest(downsample(others, 4), downsample(images, 4))
    np.testing.assert_allclose(found.numpy(), distances.min(1), rtol=1e-4)
    assert numbers.tolist() == distances.argmin(1).tolist()


def test_three_neighbours_vote(known):
    images, _ = known
    labels = torch.arange(60) % 2  # with two classes and three votes there is no tie
    others = torch.rand(25, 2, 8, 16) * 2 - 1
    distances = ((shrunk(others)[:, None] - shrunk(images)[None]) ** 2).sum(-1)
    votes = labels.numpy()[distances.argsort(1)[:, :3]]
    read = [Counter(row.tolist()).most_common(1)[0][0] for row in votes]
    asked = torch.randint(2, (25,))
    expected = np.mean([one == other for one, other in zip(read, asked.tolist(), strict=True)])
    found = vote(downsample(others, 4), downsample(images, 4), labels) == asked
    assert found.float().mean() == pytest.approx(expected)


def test_near_copies_by_definition(known):
    training = downsample(known[0])
    held_out = torch.rand(200, 2, 8, 16, generator=torch.Generator().manual_seed(5)) * 2 - 1
    others, far = downsample(held_out), downsample(torch.full((3, 2, 8, 16), 9.0))
    assert near_copies(others, training, others) == pytest.approx(0.05, abs=0.005)
    assert near_copies(training, training, others) == 1
    assert near_copies(far, training, others) == 0


def test_a_copy_has_distance_zero(known):
    training = downsample(known[0])
    assert nearest(training[:30], training)[0].max() == 0


def test_slightly_changed_copies_are_found(known):
    images, _ = known
    held_out = torch.rand(40, 2, 8, 16) * 2 - 1
    assert near_copies(downsample(images + 0.01), downsample(images), downsample(held_out)) == 1
