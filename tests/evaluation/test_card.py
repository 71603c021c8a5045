"""Metric cards, intervals and rounding."""

import json
import math

import numpy as np
import pytest
import torch

from genstack.data.images import Preprocessing, save
from genstack.data.transforms import load
from genstack.evaluation.card import Card, Number, Skipped
from genstack.evaluation.metrics.intervals import jackknife_interval, mean_interval
from genstack.evaluation.reference import as_saved


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(3, 5, 7),
        Preprocessing(4, 5, 7),
        Preprocessing(1, 5, 7, bits=16),
        Preprocessing(1, 5, 7, window=(10.0, 200.0)),
        Preprocessing(1, 5, 7, window=(100.0, 40_000.0), bits=16),
    ],
    ids=str,
)
def test_tensors_are_rounded_as_in_files(preprocessing, tmp_path):
    images = torch.rand(2, *preprocessing.shape) * 2.2 - 1.1
    for number, image in enumerate(images):
        save(image, tmp_path / f"{number}.png", preprocessing, {})
    read = torch.stack([load(tmp_path / f"{number}.png", preprocessing) for number in range(2)])
    torch.testing.assert_close(as_saved(images, preprocessing), read, rtol=0, atol=1e-6)
    torch.testing.assert_close(as_saved(read, preprocessing), read, rtol=0, atol=1e-6)


def test_card_with_infinite_numbers_is_valid_json(tmp_path):
    results = [
        Number("PSNR", math.inf, "of equal images", "higher", (math.inf, math.inf), unit="dB"),
        Skipped("FID", "there are 3 images"),
        Number("KID", 0.25, "distance", "lower", (0.2, 0.3), real=0.001),
    ]
    card = Card.of("compressor", {"seed": 3}, results, {})
    card.save(tmp_path / "run" / "card.json")
    plain = json.loads((tmp_path / "run" / "card.json").read_text())
    assert plain["format_version"] == 1 and plain["protocol"] == {"seed": 3}
    assert [number["value"] for number in plain["numbers"]] == ["inf", 0.25]
    assert plain["skipped"] == [{"name": "FID", "reason": "there are 3 images"}]
    assert list(card.lines()) == [
        "PSNR  inf dB  [inf, inf]",
        "KID   0.25  [0.2, 0.3]  real images: 0.001",
        "FID   not measured: there are 3 images",
    ]


def test_interval_of_a_mean_matches_the_normal_distribution():
    values = torch.randn(400)
    low, high = mean_interval(values)
    assert (high - low) / 2 == pytest.approx(1.96 * float(values.std()) / 20, rel=0.1)
    assert (high + low) / 2 == pytest.approx(float(values.mean()), abs=0.01)


def test_jackknife_of_a_mean_matches_its_standard_error():
    values = torch.randn(500, 1).double()
    low, high = jackknife_interval(lambda each: float(each.mean()), [values])
    assert (high + low) / 2 == pytest.approx(float(values.mean()))
    assert (high - low) / 2 == pytest.approx(1.96 * float(values.std()) / np.sqrt(500), rel=0.6)
