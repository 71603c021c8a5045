"""Regions that are sampled in parallel: what each code sees, in loops, and the laws of every prior."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from genstack.conditions import ClassLabels
from genstack.conditions.captions import Captions
from genstack.errors import UserError
from genstack.inputs import ConditionInputs
from genstack.layout import CodeLayout
from genstack.prior import Autoregressive, Known, SamplingOptions, image_seeds
from genstack.prior.editing import ignores_known
from genstack.prior.masked_bits import MaskedBits
from genstack.prior.symbols import Bits
from genstack.prior.window import sample_layout
from genstack.testing import laws_in, priors
from genstack.transformer.neighbors import COLUMNS, NeighborEmbedding

CLASSES = ClassLabels(("a", "b", "c"), dropout=0.25)
LAYOUT = CodeLayout((32, 48), 7, ((4, 6),))
SHAPES = [(2, 2), (1, 2), (2, 1), (2, 3), (4, 6)]


def turns(layout, regions):
    """The step of each code, by a loop."""
    (height, width), (rows, columns) = layout.grids[0], regions
    found = []
    for row, column, depth in product(range(height), range(width), range(layout.depth)):
        h, w = height // rows, width // columns
        place = (row % h * w + column % w) * layout.depth + depth
        region = row // h * columns + column // w
        found.append(region if place == 0 else rows * columns + place - 1)
    return torch.tensor(found)


def strange(prior):
    """Away from the small weights of the start, so that differences show."""
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return prior.eval()


@pytest.mark.parametrize("regions", SHAPES)
@pytest.mark.parametrize("depth", [1, 2])
@torch.no_grad()
def test_a_code_sees_all_codes_of_earlier_steps_and_no_other(regions, depth, tiny):
    layout = replace(LAYOUT, depth=depth)
    prior, turn = strange(Autoregressive(layout, CLASSES, tiny, regions=regions)), turns(layout, regions)
    codes, labels = torch.randint(7, (1, layout.length)), torch.tensor([1])
    before = prior.logits(codes, labels)
    for index in range(0, layout.length, 3):
        changed = codes.clone()
        changed[0, index] = (changed[0, index] + 3) % 7
        moved = (prior.logits(changed, labels) - before).abs().amax(dim=(0, 2)) > 1e-6
        assert torch.equal(moved, turn > turn[index])
    assert torch.equal(turn[prior.sampling_order], turn.sort(stable=True).values)


@pytest.mark.parametrize("law", laws_in(priors), ids=lambda law: law.__name__)
def test_regions_keep_the_law(law, monkeypatch):
    layouts = (LAYOUT, CodeLayout((16, 32), 11, ((2, 4),), depth=2))
    monkeypatch.setattr(priors, "LAYOUTS", layouts)
    law(priors.Builder(Autoregressive, regions=(1, 2)))


@pytest.mark.parametrize("symbols", [Bits(), MaskedBits(width=24, depth=1, steps=2)], ids=str)
def test_bits_of_several_codes_are_sampled_at_once(symbols, tiny):
    layout = CodeLayout((32, 48), 16, ((4, 6),))
    prior = strange(Autoregressive(layout, CLASSES, tiny, symbols=symbols, regions=(2, 2)))
    labels, seeds = torch.arange(5) % 3, image_seeds(3, range(5))
    options = SamplingOptions(guidance=1.5, temperature=0.9)
    together = prior.sample(labels, options, seeds)
    alone = [prior.sample(labels[[row]], options, seeds[[row]]) for row in range(5)]
    assert torch.equal(torch.cat(alone), together) and len(together.unique(dim=0)) == 5
    if symbols == Bits():
        cold = prior.sample(labels, SamplingOptions(temperature=0.0), seeds)
        best = prior.logits(cold, labels) > 0
        assert torch.equal((best << torch.arange(4)).sum(-1), cold)


@pytest.mark.parametrize("across", [True, False])
def test_captions_with_padding(across, tiny):
    captions = Captions(vocabulary=256, length=5, depth=1, heads=3, dropout=0.2)
    prior = strange(Autoregressive(LAYOUT, captions, replace(tiny, cross_attention=across), regions=(2, 2)))
    words = ("ab", "cdefg", "", "gfedc")
    values = captions.encode(ConditionInputs(torch.zeros(4, dtype=torch.int64), words))
    cold = prior.sample(values, SamplingOptions(temperature=0.0), image_seeds(0, range(4)))
    assert torch.equal(cold, prior.logits(cold, values).argmax(dim=-1))


@pytest.mark.parametrize("regions", [1, 2, 4])
def test_neighbors_lie_above_within_the_rows_of_a_region(regions):
    layout = CodeLayout((32, 24), 5, ((4, 3),), 2)
    embedding, vectors = NeighborEmbedding(layout, 4, regions), torch.randn(2, 1 + layout.length, 4)
    vectors[:, 0] = 0
    found = embedding(torch.zeros(2, layout.length, 4), torch.arange(layout.length), vectors)
    for index, (row, column, depth) in enumerate(product(range(4), range(3), range(2))):
        expected = torch.zeros(2, 4)
        for shift, layer in zip(COLUMNS, embedding.layers, strict=False):
            if row % (4 // regions) and 0 <= column + shift < 3:
                expected = expected + layer(vectors[:, 1 + ((row - 1) * 3 + column + shift) * 2 + depth])
        torch.testing.assert_close(found[:, index], expected)


def test_known_codes_count_in_the_order_of_sampling(tiny):
    prior, turn = Autoregressive(LAYOUT, CLASSES, tiny, regions=(2, 1)), turns(LAYOUT, (2, 1))[None]
    codes = torch.zeros(1, LAYOUT.length, dtype=torch.int64)
    assert not ignores_known(prior, Known(codes, turn < 5))
    assert ignores_known(prior, Known(codes, turn >= 5))
    upper = torch.arange(LAYOUT.length)[None] < 12
    assert ignores_known(prior, Known(codes, upper)) and not ignores_known(
        Autoregressive(LAYOUT, CLASSES, tiny), Known(codes, upper)
    )


def test_larger_images_by_windows(tiny):
    prior, labels, seeds = (
        Autoregressive(LAYOUT, CLASSES, tiny, regions=(2, 2)),
        torch.arange(2),
        image_seeds(0, range(2)),
    )
    wide = CodeLayout((48, 80), 7, ((6, 10),))
    codes = sample_layout(prior, lambda box: labels, SamplingOptions(), seeds, wide)
    assert codes.shape == (2, 60) and codes.min() >= 0 and codes.max() < 7


@pytest.mark.parametrize(
    ("grids", "regions", "got"),
    [(((3, 5),), (2, 1), "3x5"), (((2, 2), (4, 4)), (2, 2), "2x2, 4x4"), (((4, 4),), (0, 2), "4x4")],
)
def test_regions_that_do_not_divide_the_grid_are_refused(grids, regions, got, tiny):
    with pytest.raises(UserError, match=rf"regions \d,\d must divide one grid of codes, got {got}; use"):
        Autoregressive(CodeLayout((32, 32), 7, grids), CLASSES, tiny, regions=regions)
