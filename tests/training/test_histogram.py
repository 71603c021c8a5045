"""The chart of codes, checked by its pixels."""

import numpy as np
import pytest
import torch

from genstack.training.histogram import BAR, DEAD, FOOT, GAP, HEAD, HEIGHT, LEFT, Histogram, histograms

INSIDE = slice(GAP + HEAD, GAP + HEAD + HEIGHT)  # rows of the first chart


def heights(picture, columns):
    """Pixels of the colour of bars in each column."""
    pixels = np.asarray(picture)[INSIDE, LEFT : LEFT + columns]
    return (pixels == BAR).all(-1).sum(0), (pixels == DEAD).all(-1).any(0)


def test_bars_are_logarithmic_and_dead_codes_are_tinted():
    picture = histograms([Histogram("", torch.tensor([999, 99, 9, 1]), 8)])
    tall, dead = heights(picture, 640)
    unit = (HEIGHT - FOOT) / 3
    for code, count in enumerate([999, 99, 9, 1]):
        columns = tall[code * 80 : (code + 1) * 80]
        # the line of equal frequency crosses the bars that are higher
        expected = FOOT + unit * np.log10(count)
        assert (abs(columns - expected) <= 2).all(), code
    assert (tall[320:] == 0).all()
    assert not dead[:320].any() and dead[320:].all()


@pytest.mark.parametrize("codes", [1, 7, 640, 641, 2**30])
def test_every_codebook_size_fits(codes):
    seen = min(codes, 5000)
    picture = histograms([Histogram("caption", torch.arange(seen, 0, -1), codes)] * 3)
    assert picture.width < 700
    tall, _ = heights(picture, 640)
    assert tall[0] > 0


def test_chart_without_counts():
    tall, dead = heights(histograms([Histogram("", torch.empty(0, dtype=torch.int64), 64)]), 640)
    assert tall.sum() == 0 and dead.all()
