"""Orders against scipy's Halton sequence, and what each says comes next."""

import numpy as np
import pytest
import torch
from scipy.stats import qmc

from genstack.conditions import Unconditional
from genstack.layout import CodeLayout
from genstack.prior import SamplingOptions, image_seeds
from genstack.prior.mask_schedule import MaskSchedule
from genstack.prior.masked import Masked
from genstack.prior.order import Confidence, Halton, Random, Raster, gumbel, halton_visits

EULER = 0.5772


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (5, 7), (16, 16), (8, 24)])
def test_halton_visits_cells_as_the_sequence_first_reaches_them(height, width):
    points = qmc.Halton(2, scramble=False).random(20_001)[1:]  # from (1/2, 1/3) on
    cells = np.floor(points * [height, width]).astype(int) @ [width, 1]
    reached = list(dict.fromkeys(cells.tolist()))
    assert len(reached) == height * width
    assert halton_visits(height, width)[reached].tolist() == list(range(height * width))


def test_halton_spreads_first_codes():
    """A quarter of the cells of a grid reaches all of its blocks of 4 x 4."""
    early = torch.from_numpy(halton_visits(16, 16) < 64).unflatten(0, (16, 16))
    assert early.unflatten(0, (4, 4)).unflatten(2, (4, 4)).sum((1, 3)).min() >= 3


def test_halton_orders_grids_and_depths(layout):
    ranks = Halton().ranks(layout, torch.zeros(3, layout.length))
    positions = layout.positions()
    assert ranks.shape == (3, layout.length)
    assert ranks[2].sort().values.tolist() == list(range(layout.length))
    turn = positions.grid * layout.depth + positions.depth
    assert torch.equal(turn[ranks[0].argsort()], turn.sort().values)


def test_randomized_halton_begins_anywhere_in_each_grid_and_depth(layout):
    """Each is the sequence rolled by a number per image, and each place comes first as often."""
    noise = torch.rand(64, 1).expand(-1, layout.length)
    ranks, plain = Halton(randomize=True).ranks(layout, noise), Halton().ranks(layout, noise)
    positions = layout.positions()
    turn = positions.grid * layout.depth + positions.depth
    for each in turn.unique():
        part = turn == each
        size, shift = int(part.sum()), (ranks - plain)[:, part]
        assert (shift % size == (noise[:, part] * size).floor()).all()
        assert torch.equal(ranks[:, part].sort(dim=1).values, plain[:, part].sort(dim=1).values)
    assert torch.equal(Halton(randomize=True).ranks(layout, torch.zeros(1, layout.length)), plain[:1])


def test_a_randomized_order_stays_the_same_in_all_steps(tiny):
    layout = CodeLayout((8, 8), 5, ((3, 4),))
    prior = Masked(
        layout, Unconditional(), tiny, order=Halton(randomize=True), schedule=MaskSchedule("linear", 12)
    )
    seen = []
    ranks = type(prior.order).ranks

    def remember(order, layout, noise):
        seen.append(noise[:, 0].clone())
        return ranks(order, layout, noise)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Halton, "ranks", remember)
        prior.sample(torch.zeros(3, dtype=torch.int64), SamplingOptions(), image_seeds(0, range(3)))
    assert (
        len(seen) == 12
        and all(torch.equal(each, seen[0]) for each in seen)
        and len(set(seen[0].tolist())) == 3
    )


def test_fixed_orders_need_only_ranks():
    layout, noise = CodeLayout((8, 8), 5, ((2, 3),)), torch.rand(2, 6)
    for order in (Raster(), Random(), Halton(), Halton(randomize=True)):
        priority = order.priority(layout, torch.randn(2, 6), noise, 0.5)
        assert torch.equal(priority, -order.ranks(layout, noise))
    assert Raster().ranks(layout, noise)[1].tolist() == list(range(6))


def test_confidence_noise_decays_to_zero():
    layout, sure = CodeLayout((8, 8), 5, ((2, 3),)), torch.randn(4, 6)
    noise = torch.rand(4, 6)
    assert torch.equal(Confidence(3.0).priority(layout, sure, noise, 0.0), sure)
    torch.testing.assert_close(Confidence(3.0).priority(layout, sure, noise, 0.5), sure + 1.5 * gumbel(noise))
    assert torch.equal(Confidence(0.0).priority(layout, sure, noise, 1.0), sure)


def test_gumbel_noise_is_finite_and_has_its_mean_and_spread():
    ends = gumbel(torch.tensor([0.0, 1 - 2**-24]))
    assert ends.isfinite().all()
    noise = gumbel(torch.rand(200_000))
    assert float(noise.mean()) == pytest.approx(EULER, abs=0.02)
    assert float(noise.std()) == pytest.approx(np.pi / 6**0.5, abs=0.02)


def test_a_temperature_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"temperature must be at least 0, got -1\.0"):
        Confidence(-1.0)
