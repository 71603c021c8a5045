"""Windows over larger grids, with priors whose answer is known."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from genstack.conditions import ClassLabels, Unconditional
from genstack.inputs import ConditionInputs
from genstack.layout import CodeLayout
from genstack.prior import Autoregressive, CodePrior, Known, Prior, SamplingOptions, image_seeds
from genstack.prior.logits import uniforms
from genstack.prior.window import sample_layout, window_seeds, window_starts

WINDOW = CodeLayout((24, 40), 97, ((3, 5),))
NOTHING = torch.zeros(2, dtype=torch.int64)
SEEDS = image_seeds(4, range(2))


class Slope(CodePrior):
    """Codes rise by 7 a row, 3 a column and 1 a depth, from what is known or else from the seed."""

    def __init__(self, layout: CodeLayout):
        super().__init__()
        self.layout, self.condition = layout, Unconditional()
        self.anywhere = nn.Parameter(torch.zeros(1))
        self.asked: list[Known] = []

    def loss(self, codes, condition):
        raise AssertionError("not trained")

    nats = loss

    def sample_codes(self, guidance, options, seeds, known):
        self.asked.append(known)
        slope = rise(self.layout)
        lowest = torch.where(known.mask, known.values - slope, -1000).amax(dim=1)
        free = (uniforms(seeds, 1)[:, 0] * self.layout.codebook_size).long()
        lowest = torch.where(known.mask.any(dim=1), lowest, free)
        return (lowest[:, None] + slope) % self.layout.codebook_size


class Chance(Slope):
    """Every code by its own number."""

    def sample_codes(self, guidance, options, seeds, known):
        self.asked.append(known)
        return (uniforms(seeds, self.layout.length) * self.layout.codebook_size).long()


def rise(layout: CodeLayout) -> torch.Tensor:
    positions = layout.positions()
    return 7 * positions.row + 3 * positions.column + positions.depth


def larger(rows: int, columns: int, window: CodeLayout = WINDOW) -> CodeLayout:
    return replace(window, image_size=(8 * rows, 8 * columns), grids=((rows, columns),))


def sample(
    prior: Prior, layout: CodeLayout, known: Known | None = None, overlap: float = 0.5
) -> torch.Tensor:
    return sample_layout(prior, lambda box: NOTHING, SamplingOptions(), SEEDS, layout, known, overlap)


@pytest.mark.parametrize("size", [(3, 5), (3, 9), (4, 5), (7, 11), (2, 9), (6, 4), (1, 1)])
@pytest.mark.parametrize("overlap", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("depth", [1, 2])
def test_pattern_continues_through_all_windows(size, overlap, depth):
    window = replace(WINDOW, codebook_size=1000, depth=depth)
    layout = larger(*size, window)
    codes = sample(Slope(window), layout, overlap=overlap)
    lowest = codes[:, :1] - rise(layout)[:1]
    assert torch.equal(codes, lowest + rise(layout))
    assert not torch.equal(codes[0], codes[1])


def test_a_window_of_the_whole_grid_is_the_ordinary_sample(tiny):
    prior = Autoregressive(WINDOW, ClassLabels(("a", "b", "c")), tiny)
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.3)
    labels, options = torch.tensor([2, 0]), SamplingOptions(temperature=0.8, guidance=1.5)
    mask = (torch.arange(15) % 4 == 0).expand(2, -1)
    known = Known(torch.randint(97, (2, 15)), mask)
    for given in (None, known):
        plain = prior.sample(labels, options, SEEDS, given)
        assert torch.equal(sample_layout(prior, lambda box: labels, options, SEEDS, WINDOW, given), plain)
    same_grid = replace(WINDOW, image_size=(30, 40))  # not the prior's layout, and yet one window
    through = sample_layout(prior, lambda box: labels, options, SEEDS, same_grid)
    assert torch.equal(through, prior.sample(labels, options, SEEDS))
    taller = sample_layout(prior, lambda box: labels, options, SEEDS, larger(6, 5))
    assert torch.equal(taller[:, :15], prior.sample(labels, options, SEEDS)), (
        "the first window is that sample"
    )


def test_every_code_is_sampled_once_with_its_own_numbers():
    prior, layout = Chance(replace(WINDOW, codebook_size=10**6)), larger(7, 11)
    codes = sample(prior, replace(layout, codebook_size=10**6))
    assert len(codes.unique()) > 0.99 * codes.numel()
    assert sum(int((~known.mask[0]).sum()) for known in prior.asked) == layout.length


def test_image_depends_only_on_its_seed():
    layout, prior = larger(5, 8), Chance(WINDOW)
    together = sample(prior, layout)
    alone = sample_layout(prior, lambda box: NOTHING[:1], SamplingOptions(), SEEDS[1:], layout)
    assert torch.equal(together[1:], alone)


def test_known_codes_are_kept_and_sampling_proceeds_outwards():
    layout, prior = larger(6, 10), Slope(replace(WINDOW, codebook_size=1000))
    layout = replace(layout, codebook_size=1000)
    positions = layout.positions()
    inside = (positions.row >= 2) & (positions.row < 4) & (positions.column >= 4) & (positions.column < 7)
    known = Known((300 + rise(layout)).expand(2, -1), inside.expand(2, -1))
    codes = sample(prior, layout, known)
    assert torch.equal(codes, known.values), "all of it goes on from what was given"
    counts = [int(asked.mask[0].sum()) for asked in prior.asked]
    assert min(counts) > 0
    everything = Known(codes, torch.ones_like(known.mask))
    prior.asked.clear()
    assert torch.equal(sample(prior, layout, everything), codes) and prior.asked == []


@pytest.mark.parametrize(("whole", "side", "overlap"), [(5, 5, 0.5), (9, 4, 0.5), (10, 3, 0.0), (7, 3, 0.99)])
def test_windows_cover_the_grid(whole, side, overlap):
    begins = window_starts(whole, side, overlap)
    assert begins[0] == 0 and begins[-1] == whole - side
    assert all(
        0 < later - earlier <= max(1, round(side * (1 - overlap))) for earlier, later in pairwise(begins)
    )


def test_windows_have_seeds_of_their_own():
    seeds = torch.cat([window_seeds(image_seeds(0, range(50)), number) for number in range(20)])
    assert len(seeds.unique()) == 1000
    assert torch.equal(window_seeds(SEEDS, 0), SEEDS)


@pytest.mark.parametrize(
    ("window", "layout", "message"),
    [
        (CodeLayout((24, 32), 11, ((1, 2), (3, 4))), larger(6, 8), "this prior has 2.*use 24x32, or"),
        (
            CodeLayout((32, 32), 11, ((1, 9),)),
            CodeLayout((64, 32), 11, ((1, 9),)),
            "9 codes.* have no position",
        ),
    ],
)
def test_layouts_without_windows_are_rejected(window, layout, message):
    with pytest.raises(ValueError, match=message):
        sample(Slope(window), layout)


def test_an_overlap_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"overlap must be at least 0 and below 1, got 1\.0"):
        sample(Slope(WINDOW), larger(5, 8), overlap=1.0)


class Reader(Slope):
    """Codes are what the condition says of their places."""

    def sample_codes(self, guidance, options, seeds, known):
        return guidance.values


@pytest.mark.parametrize("size", [(3, 5), (7, 11), (2, 9), (6, 4), (1, 1)])
def test_windows_read_their_part_of_the_condition(size):
    """A map that is as large as the image, of one value for each code, comes back as it was."""
    layout, window = larger(*size), WINDOW.image_size
    wanted = torch.randint(97, (2, 1, *size))
    images = wanted.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3).float()
    inputs = replace(
        ConditionInputs.nothing(2), images=images, crops=torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2)
    )
    boxes = []

    def values(box):
        part = inputs.crop(box, window)
        boxes.append(part.crops[0].tolist())
        return part.images[:, 0, ::8, ::8].long().flatten(1)

    codes = sample_layout(Reader(WINDOW), values, SamplingOptions(), SEEDS, layout)
    assert torch.equal(codes, wanted.flatten(1))
    tops, lefts, bottoms, rights = zip(*boxes, strict=True)
    assert (min(tops), min(lefts), max(bottoms), max(rights)) == pytest.approx((0, 0, 1, 1))
    for top, left, bottom, right in boxes:
        assert bottom - top == pytest.approx(min(3 / size[0], 1)), "the window's share of the image"
        assert right - left == pytest.approx(min(5 / size[1], 1))


def test_progress_rises_over_all_windows():
    class Reporting(Chance):
        def sample_codes(self, guidance, options, seeds, known):
            for progress in (0.0, 0.5, 1.0):
                guidance.apply(torch.zeros(len(seeds), 97), progress)
            return super().sample_codes(guidance, options, seeds, known)

    steps: list[float] = []
    large = replace(WINDOW, image_size=(48, 64), grids=((6, 8),))
    options = SamplingOptions()
    sample_layout(Reporting(WINDOW), lambda box: NOTHING, options, SEEDS, large, report=steps.append)
    assert len(steps) > 3 and steps[0] == 0 and steps == sorted(steps) and steps[-1] == 1
