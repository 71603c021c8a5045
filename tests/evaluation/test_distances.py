"""Distances of sets against closed forms, loops, scipy and torchmetrics."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from genstack.evaluation.card import Number, Skipped
from genstack.evaluation.distances import distances
from genstack.evaluation.extractor import Extractor, Features
from genstack.evaluation.metrics.coverage import coverage
from genstack.evaluation.metrics.frechet import MIN_IMAGES, frechet_distance
from genstack.evaluation.metrics.inception_score import inception_score
from genstack.evaluation.metrics.kid import kid


def two_sets(count=300, other=260, dim=7):
    mixing = torch.randn(dim, dim, dtype=torch.float64)
    return torch.randn(count, dim).double() @ mixing, 1.3 * torch.randn(other, dim).double() + 0.4


def test_frechet_distance_of_equal_sets_is_zero():
    one, _ = two_sets()
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one, one.flip(0)) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_matches_scipy_and_torchmetrics():
    one, other = two_sets()
    covariances = [np.cov(each.numpy(), rowvar=False) for each in (one, other)]
    gap = float((one.mean(0) - other.mean(0)).square().sum())
    root = np.trace(sqrtm(covariances[0] @ covariances[1])).real
    assert frechet_distance(one, other) == pytest.approx(
        gap + sum(map(np.trace, covariances)) - 2 * root, rel=1e-8
    )
    theirs = _compute_fid(one.mean(0), torch.cov(one.T), other.mean(0), torch.cov(other.T))
    assert frechet_distance(one, other) == pytest.approx(float(theirs), rel=1e-4)


def test_frechet_distance_of_a_shift_is_its_square():
    one, _ = two_sets()
    moved = one + torch.arange(7.0)
    assert frechet_distance(one, moved) == pytest.approx(sum(n**2 for n in range(7)), rel=1e-9)
    assert frechet_distance(one, 3 * one) == pytest.approx(
        float(4 * (one.mean(0).square().sum() + torch.cov(one.T).trace())), rel=1e-9
    )


@pytest.mark.parametrize(("count", "other"), [(5, 6), (5, 100), (100, 5), (64, 64)])
def test_frechet_distance_of_deficient_rank_is_finite(count, other):
    """Fewer images than features, features that are always 0, and features that repeat."""
    one, fake = torch.rand(count, 40).double(), torch.rand(other, 40).double()
    for features in (one, fake):
        features[:, 3] = 0
        features[:, 5] = features[:, 4]
    assert math.isfinite(frechet_distance(one, fake)) and frechet_distance(one, fake) > 0
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    # whichever of the two ways the root is found in
    more = torch.cat([one] * 20)
    scale = (len(more) * (count - 1) / (count * (len(more) - 1))) ** 0.5
    shrunk = (more - more.mean(0)) / scale + more.mean(0)
    assert frechet_distance(shrunk, fake) == pytest.approx(frechet_distance(one, fake), rel=1e-6)


class NamedExtractor(Extractor):
    name, kid, frechet, score, metadata = "Inception", "KID", "FID", "InceptionScore", {}

    def __init__(self, device="cpu"):
        pass

    def __call__(self, images):
        raise NotImplementedError


@pytest.mark.parametrize(("count", "other"), [(MIN_IMAGES, MIN_IMAGES + 1), (MIN_IMAGES, MIN_IMAGES - 1)])
def test_frechet_distance_of_few_images_is_skipped(count, other):
    sets = [Features(torch.randn(n, 2), torch.ones(n, 1)) for n in (count, other)]
    of_kid, of_frechet = distances(NamedExtractor(), *sets, "g")
    assert isinstance(of_kid, Number) and of_kid.name == "gKID"
    if other >= MIN_IMAGES:
        assert isinstance(of_frechet, Number) and of_frechet.name == "gFID"
    else:
        expected = (
            "needs at least 2,048 images of either set, got 2,047; gKID is unbiased for small sets, too"
        )
        assert of_frechet == Skipped("gFID", expected)


def test_kid_matches_a_loop_over_pairs():
    one, other = two_sets(9, 8, 5)

    def kernel_of(x, y):
        return (float(x @ y) / 5 + 1) ** 3

    within = [
        np.mean([kernel_of(a, b) for i, a in enumerate(each) for j, b in enumerate(each) if i != j])
        for each in (one, other)
    ]
    across = np.mean([kernel_of(a, b) for a in one for b in other])
    assert kid(one, other)[0] == pytest.approx(sum(within) - 2 * across, rel=1e-10)


def test_kid_matches_torchmetrics():
    one, other = two_sets(200, 200)
    assert kid(one, other)[0] == pytest.approx(float(poly_mmd(one, other)), rel=1e-4)


def test_kid_of_large_sets_averages_blocks(monkeypatch):
    one, other = two_sets(400, 300)
    whole, _ = kid(one, other)
    monkeypatch.setattr("genstack.evaluation.metrics.kid.BLOCK_SIZE", 100)
    blocks, (low, high) = kid(one, other)
    assert blocks == pytest.approx(whole, rel=0.2)
    assert low < blocks < high


def test_kid_interval_covers_the_true_distance():
    """The distance is 0 for sets of one distribution, where the interval is rather too wide."""
    held = [low <= 0 <= high for low, high in (kid(*torch.randn(2, 60, 4))[1] for _ in range(40))]
    assert np.mean(held) >= 0.9
    far, (low, high) = kid(torch.randn(200, 4), torch.randn(200, 4) + 1)
    assert 0 < low < far < high


def test_coverage_by_definition():
    real, fake = torch.randn(37, 3).double(), (torch.randn(29, 3) * 0.6 + 0.3).double()

    def distances(a, b):
        return np.sqrt(((a.numpy()[:, None] - b.numpy()[None]) ** 2).sum(-1))

    near = {k: np.sort(distances(real, real), axis=1)[:, k] for k in (3, 5)}
    fake_near = np.sort(distances(fake, fake), axis=1)[:, 3]
    across = distances(real, fake)
    found = coverage(real, fake)
    assert found.precision.mean() == pytest.approx((across <= near[3][:, None]).any(0).mean())
    assert found.recall.mean() == pytest.approx((across <= fake_near[None]).any(1).mean())
    assert found.density.mean() == pytest.approx((across < near[5][:, None]).sum(0).mean() / 5)
    assert found.coverage.mean() == pytest.approx((across < near[5][:, None]).any(1).mean())


def test_coverage_does_not_depend_on_the_number_of_rows(monkeypatch):
    real, fake = torch.randn(37, 3), torch.randn(29, 3)
    whole = coverage(real, fake)
    monkeypatch.setattr("genstack.evaluation.metrics.coverage.ROWS", 8)
    rows = coverage(real, fake)
    for name in ("precision", "recall", "density", "coverage"):
        torch.testing.assert_close(getattr(rows, name), getattr(whole, name))


def test_coverage_of_equal_and_of_distant_sets():
    real = torch.randn(50, 4)
    same, far = coverage(real, real.clone()), coverage(real, real + 1000)
    assert same.precision.mean() == same.recall.mean() == same.coverage.mean() == 1
    assert far.precision.sum() == far.recall.sum() == far.density.sum() == far.coverage.sum() == 0


def test_inception_score_of_confident_and_of_uniform_predictions():
    sure = torch.eye(4).repeat(25, 1)
    assert inception_score(sure)[0] == pytest.approx(4)
    assert inception_score(torch.full((50, 4), 0.25))[0] == pytest.approx(1)
    probabilities = torch.rand(30, 6).double().softmax(1)
    mean = probabilities.mean(0)
    expected = (probabilities * (probabilities / mean).log()).sum(1).mean().exp()
    found, (low, high) = inception_score(probabilities)
    assert found == pytest.approx(float(expected)) and low < high
