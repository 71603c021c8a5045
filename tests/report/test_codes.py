"""Counts and images of codes, with a compressor whose images are known."""

from collections import Counter

import pytest
import torch
from einops import rearrange

from genstack.compressor import Compressor
from genstack.data.images import Preprocessing
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.report.codes import changed_area, codes, rank


class Palette(Compressor):
    """Each code is a square of 2 x 2 pixels of one grey: 0 black, `size` - 1 white."""

    def __init__(self, size: int):
        super().__init__()
        self.channels, self.size = 1, size
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def sizes(self, image_size):
        return [(image_size[0] // 2, image_size[1] // 2)]

    def layout(self, height, width):
        return CodeLayout((height, width), self.size, tuple(self.sizes((height, width))))

    def encode(self, images):
        levels = (images[:, 0, ::2, ::2] + 1) / 2 * (self.size - 1)
        return rearrange(levels.round().long(), "b h w -> b (h w)")

    def decode(self, codes, layout):
        squares = codes.float() / (self.size - 1) * 2 - 1
        height = layout.grids[0][0]
        return (
            rearrange(squares, "b (h w) -> b 1 h w", h=height).repeat_interleave(2, 2).repeat_interleave(2, 3)
        )

    def features(self, images):
        raise NotImplementedError

    def reconstruct(self, features, image_size):
        raise NotImplementedError

    @property
    def last_layer(self):
        return self.weight


@pytest.fixture
def model() -> Model:
    return Model(Palette(5), Preprocessing(1, 6, 10))


def test_codes_match_a_count_by_hand(model: Model):
    found = torch.randint(4, (7, 15))  # the fifth code never occurs
    found[:, :8] = 2
    shown = codes(model, model.compressor.decode(found, model.layout))
    counts = Counter(found.flatten().tolist())
    assert (shown.images, shown.count, shown.size) == (7, 105, 5)
    assert (shown.health.dead, shown.health.share) == (1, 0.8)
    entropy = -sum(n / 105 * torch.tensor(n / 105).log().item() for n in counts.values())
    assert shown.health.perplexity == pytest.approx(torch.tensor(entropy).exp().item(), rel=1e-5)
    (grid,) = shown.grids
    assert (grid.uniform[0].name, round(grid.uniform[0].share * 105)) == ("2", counts[2])
    assert {code.name: round(code.share * 105) for code in grid.uniform} == {
        str(code): n for code, n in counts.items()
    }


def test_changed_code_changes_its_square_only(model: Model):
    found = torch.zeros(1, 15, dtype=torch.int64)
    grid = codes(model, model.compressor.decode(found.repeat(2, 1), model.layout)).grids[0]
    assert grid.place == (2, 3)
    others = found.repeat(3, 1)
    others[:, 1 * 5 + 2] = torch.tensor([1, 2, 3])
    decode = model.compressor.decode
    rows, columns = changed_area(decode(found, model.layout), decode(others, model.layout))
    assert (rows, columns) == (
        slice(0, 6),
        slice(2, 8),
    )  # rows 2 and 3, columns 4 and 5, with 2 pixels around
    same = decode(found, model.layout)
    assert changed_area(same, same) == (slice(0, 6), slice(0, 10))


def test_joint_codes_are_ranked():
    grid = torch.tensor([[[[1, 2], [3, 4]], [[1, 2], [1, 4]]]])
    symbols, shares = rank(grid)
    assert symbols[0].tolist() == [1, 2] and shares.tolist() == [0.5, 0.25, 0.25]
