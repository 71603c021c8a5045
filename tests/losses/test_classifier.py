"""Distances in a classifier's logits and features."""

import pytest
import torch
from torch import nn

from genstack.losses.classifier import ClassifierDistance
from genstack.losses.efficientnet import EfficientNetLite0

PLAN = EfficientNetLite0(size=None)


@pytest.fixture(scope="module")
def seen():
    """Images, reconstructions that overshoot, and what the network sees in both."""
    images = torch.rand(2, 3, 33, 50, generator=torch.Generator().manual_seed(0)) * 2 - 1
    others, network = 1.1 * images.flip(-1), PLAN.build()
    return images, others, network(images), network(others)


def test_logit_distance_is_the_mean_square(seen):
    images, others, one, other = seen
    found = ClassifierDistance(PLAN, logits=3.0).distances(others, images)
    torch.testing.assert_close(found, 3 * (one.logits - other.logits).square().mean(1))


def test_map_distance_depends_on_directions(seen):
    """The squared difference of unit vectors is 2 - 2 cos."""
    images, others, one, other = seen
    found = ClassifierDistance(PLAN, logits=0.0, maps=1.0).distances(others, images)
    angles = [
        (2 - 2 * nn.functional.cosine_similarity(a, b)).mean((1, 2))
        for a, b in zip(one.maps, other.maps, strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(angles).mean(0), rtol=1e-4, atol=1e-5)


def test_grey_equals_three_equal_channels(seen):
    grey, other = seen[0][:, :1], seen[1][:, :1]
    distance = ClassifierDistance(PLAN)
    assert distance(other, grey) == distance(other[:, [0, 0, 0]], grey[:, [0, 0, 0]])


def test_unsupported_images_are_rejected():
    with pytest.raises(ValueError, match="1, 3 or 4 channels, got 2"):
        ClassifierDistance().check(2, 64, 64)
    with pytest.raises(ValueError, match="images of 32 x 32 pixels or more"):
        ClassifierDistance(PLAN).check(3, 16, 64)
    with pytest.raises(ValueError, match="got 0 to 255"):
        ClassifierDistance(PLAN)(torch.zeros(1, 3, 32, 32), torch.tensor([0.0, 255]).repeat(1, 3, 32, 16))
    with pytest.raises(ValueError, match="logits 0 and maps 0"):
        ClassifierDistance(logits=0.0)
