"""Codebook usage against counts by hand, over a ring buffer."""

import math
from collections import Counter, deque

import pytest
import torch

from genstack.compressor.usage import Window, usage
from genstack.layout import CodeLayout

LAYOUT = CodeLayout((6, 10), 7, ((3, 5),))
DEEP = CodeLayout((4, 6), 5, ((1, 2), (2, 3)), depth=2)


def by_hand(codes, size):
    counts = Counter(codes)
    total = sum(counts.values())
    entropy = -sum(n / total * math.log(n / total) for n in counts.values())
    return len(counts) / size, math.exp(entropy), size - len(counts)


def test_usage_matches_a_count():
    codes = torch.randint(3, 40, (500,)) ** 2 % 50
    health = usage(codes, 50)
    assert (health.share, health.perplexity, health.dead) == pytest.approx(by_hand(codes.tolist(), 50))


def test_usage_of_extremes():
    assert usage(torch.arange(9), 9).perplexity == pytest.approx(9)
    assert usage(torch.full((9,), 3), 9).perplexity == pytest.approx(1)
    nothing = usage(torch.full((9,), -1), 9)
    assert (nothing.share, nothing.dead) == (0, 9)


@pytest.mark.parametrize("layout", [LAYOUT, DEEP], ids=["depth 1", "depth 2"])
def test_window_holds_the_latest_joint_codes(layout):
    """Several times round, in batches of changing size, both symbols of a position as one."""
    window = Window(layout, shortest=3)
    length, size = len(window.codes), layout.codebook_size**layout.depth
    assert length == 10 * size
    ring = deque(maxlen=length)
    for step in range(40):
        codes = torch.randint(layout.codebook_size, (1 + step % 4, layout.length))
        window.add(codes)
        for image in codes.tolist():
            for first in range(0, layout.length, layout.depth):
                symbols = image[first : first + layout.depth]
                ring.append(sum(s * layout.codebook_size**place for place, s in enumerate(symbols)))
        assert sorted(window.codes[window.codes >= 0].tolist()) == sorted(ring)
    assert len(ring) == length, "it went round"
    health = window.usage()
    assert (health.share, health.perplexity, health.dead) == pytest.approx(by_hand(ring, size))


def test_long_batch_leaves_its_end_in_the_window():
    window = Window(CodeLayout((1, 9), 2, ((1, 9),)), shortest=5)
    length = len(window.codes)
    codes = torch.randint(2, (8, 9))
    window.add(codes)
    assert sorted(window.codes.tolist()) == sorted(codes.flatten()[-length:].tolist())


def test_window_is_saved():
    window, again = Window(LAYOUT, 3), Window(LAYOUT, 3)
    for images in (2, 3):
        window.add(torch.randint(7, (images, LAYOUT.length)))
    again.load_state_dict(window.state_dict())
    more = torch.randint(7, (4, LAYOUT.length))
    window.add(more), again.add(more)
    assert torch.equal(window.codes, again.codes)


def test_window_length_is_limited():
    assert len(Window(CodeLayout((2, 2), 2**19, ((2, 2),))).codes) == 2**20


def test_too_many_joint_codes_count_by_symbol():
    """Residual codes of 3 tables: two rows of each are seen, of 1,024."""
    layout = CodeLayout((8, 8), codebook_size=1024, grids=((1, 5),), depth=3)
    window = Window(layout)
    window.add(torch.tensor([[7, 8, 9], [7, 0, 9], [7, 8, 1], [2, 8, 9], [7, 8, 9]]).reshape(1, 15))
    found = window.usage()
    assert window.codebook_size == 3 * 1024
    assert found.share == 6 / (3 * 1024)
    assert found.dead == 3 * 1024 - 6


def test_codes_of_any_depth_are_counted():
    window = Window(CodeLayout((8, 8), codebook_size=2**14, grids=((1, 1),), depth=16))
    window.add(torch.full((1, 16), 2**14 - 1))
    assert window.usage().share == 16 / (16 * 2**14)


def test_joint_codes_of_two_symbols_are_counted():
    window = Window(CodeLayout((8, 8), codebook_size=512, grids=((1, 2),), depth=2))
    window.add(torch.tensor([[511, 511, 0, 511]]))
    assert window.usage().share == 2 / 2**18


def test_symbols_of_many_bits_count_in_parts_of_ten():
    layout = CodeLayout((2, 2), 2**42, ((1, 2),), depth=2)
    assert layout.parts == (1024, 1024, 1024, 1024, 4)
    codes = torch.tensor([[0, 5, 2**42 - 1, 1024]])
    window = Window(layout)
    assert window.groups == 10 and window.codebook_size == 2 * (4 * 1024 + 4)
    window.add(codes)
    assert window.usage().share == pytest.approx(17 / window.codebook_size)
    counts = layout.count_parts(torch.randint(2**42, (3000, 4)))
    assert len(counts) == 4100 and counts.sum() == 5 * 12000
    assert layout.unigram_nats(counts) == pytest.approx(42 * math.log(2), rel=0.01)


def test_one_part_has_the_entropy_of_its_codes():
    layout = CodeLayout((2, 2), 4, ((1, 2),))
    counts = layout.count_parts(torch.tensor([[0, 0], [1, 3]]))
    assert counts.tolist() == [2, 1, 0, 1]
    assert layout.unigram_nats(counts) == pytest.approx(1.5 * math.log(2))
