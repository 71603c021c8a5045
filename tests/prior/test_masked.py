"""The masked prior, beyond the laws of every prior."""

import math
from itertools import pairwise

import pytest
import torch

from genstack.conditions import ClassLabels, Unconditional
from genstack.layout import CodeLayout
from genstack.prior import Known, SamplingOptions, image_seeds
from genstack.prior.mask_schedule import MaskSchedule
from genstack.prior.masked import Masked
from genstack.prior.order import Confidence, Halton, Random, Raster

CLASSES = ClassLabels(("a", "b", "c"), dropout=0.25)
SQUARE = CodeLayout((32, 32), 7, ((4, 4),))
SCHEDULES = ["cosine", "arccos", "linear", "square", "cubic", "root"]


def watch(prior, monkeypatch):
    """Masked positions of each forward pass of a prior."""
    seen, forward = [], prior.network.forward

    def watching(codes, masked, selected, encoded):
        seen.append(masked.clone())
        return forward(codes, masked, selected, encoded)

    monkeypatch.setattr(prior.network, "forward", watching)
    return seen


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_decrease_from_one_to_zero(schedule):
    shares = MaskSchedule(schedule).at(torch.linspace(0, 1, 101, dtype=torch.float64))
    assert float(shares[0]) == 1 and float(shares[-1]) == pytest.approx(0, abs=1e-12)
    assert (shares.diff() < 0).all()


def test_schedules_agree_with_the_papers():
    half = torch.tensor(0.5)
    shares = {schedule: float(MaskSchedule(schedule).at(half)) for schedule in SCHEDULES}
    assert shares["cosine"] == pytest.approx(math.cos(math.pi / 4))
    assert shares["arccos"] == pytest.approx(2 / 3)
    assert (shares["linear"], shares["square"], shares["cubic"]) == pytest.approx((0.5, 0.75, 0.875))
    assert shares["root"] == pytest.approx(1 - 0.5**0.5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_number_of_masked_codes_follows_the_schedule(schedule, tiny, monkeypatch):
    prior = Masked(SQUARE, CLASSES, tiny, schedule=MaskSchedule(schedule))
    seen = watch(prior, monkeypatch)
    prior.sample(torch.arange(3), SamplingOptions(steps=5), image_seeds(0, range(3)))
    left = [masked.sum(1).unique().tolist() for masked in seen]
    expected = [16]
    for step in range(1, 5):
        share = float(MaskSchedule(schedule).at(torch.tensor(step / 5, dtype=torch.float64)))
        expected.append(min(math.floor(16 * share), expected[-1] - 1))
    assert left == [[count] for count in expected]


@pytest.mark.parametrize("order", [Confidence(), Halton(), Random(), Raster()], ids=str)
def test_more_steps_than_codes_sample_one_by_one(order, tiny, monkeypatch):
    prior = Masked(SQUARE, CLASSES, tiny, order=order)
    seen = watch(prior, monkeypatch)
    prior.sample(torch.arange(2), SamplingOptions(steps=1000, guidance=2.0), image_seeds(0, range(2)))
    assert [int(masked[0].sum()) for masked in seen] == list(range(16, 0, -1))
    for before, after in pairwise(seen):
        assert (before | ~after).all(), "what was seen once stays"


def test_fixed_orders_reveal_codes_in_order(tiny, monkeypatch):
    prior = Masked(SQUARE, Unconditional(), tiny, order=Halton(), schedule=MaskSchedule("linear"))
    seen = watch(prior, monkeypatch)
    prior.sample(torch.zeros(1, dtype=torch.int64), SamplingOptions(steps=4), image_seeds(0, range(1)))
    ranks = Halton().ranks(SQUARE, torch.zeros(1, 16))
    assert [masked.tolist() for masked in seen] == [(ranks >= first).tolist() for first in (0, 4, 8, 12)]


def test_images_with_few_masked_codes_end_early(tiny):
    """Known codes differ from image to image; each is filled in as if it were alone."""
    prior = Masked(SQUARE, CLASSES, tiny)
    labels, seeds = torch.arange(4) % 3, image_seeds(3, range(4))
    given = torch.randint(7, (4, 16))
    mask = torch.arange(16) < torch.tensor([[0], [10], [15], [16]])
    together = prior.sample(labels, SamplingOptions(), seeds, Known(given, mask))
    for index in range(4):
        row = slice(index, index + 1)
        alone = prior.sample(labels[row], SamplingOptions(), seeds[row], Known(given[row], mask[row]))
        assert torch.equal(alone, together[row])


def test_most_confident_codes_are_kept(tiny, monkeypatch):
    """Without noise: of two places, one has a certain code, which is kept in the first step."""
    layout = CodeLayout((8, 16), 5, ((1, 2),))
    prior = Masked(layout, Unconditional(), tiny, order=Confidence(0.0), schedule=MaskSchedule("linear"))
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 9.0, 0.0, 0.0]])
    calls = []

    def certain(codes, masked, selected, encoded):
        calls.append(masked.clone())
        return logits.expand(len(codes), 2, 5)[selected]

    monkeypatch.setattr(prior.network, "forward", certain)
    codes = prior.sample(
        torch.zeros(50, dtype=torch.int64), SamplingOptions(steps=2, top_p=0.9), image_seeds(0, range(50))
    )
    assert calls[1].all(0).tolist() == [True, False]
    assert (codes[:, 1] == 2).all() and len(codes[:, 0].unique()) == 5


def test_smoothing_affects_the_loss_but_not_nats(tiny):
    plain, smooth = (Masked(SQUARE, CLASSES, tiny, smoothing=share).eval() for share in (0.0, 0.3))
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    smooth.load_state_dict(plain.state_dict())
    codes, labels = torch.randint(7, (5, 16)), torch.arange(5) % 3
    losses = []
    for prior in (plain, smooth):
        torch.manual_seed(1)
        losses.append(prior.loss(codes, labels))
    assert losses[0] != losses[1]
    assert torch.equal(plain.nats(codes, labels), smooth.nats(codes, labels))


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"smoothing": 1.0}, "below 1"), ({"masks": 0}, "at")],
)
def test_settings_out_of_range_are_refused(setting, message, tiny):
    with pytest.raises(ValueError, match=message):
        Masked(SQUARE, CLASSES, tiny, **setting)


def test_a_schedule_without_steps_is_refused():
    with pytest.raises(ValueError, match="steps of the schedule must be at least 1, got 0"):
        MaskSchedule(steps=0)
