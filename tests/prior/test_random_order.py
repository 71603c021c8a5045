"""Random orders, beyond the laws of every prior."""

from itertools import permutations, product

import pytest
import torch
from torch import nn

from genstack.conditions import ClassLabels, Unconditional
from genstack.layout import CodeLayout
from genstack.prior import Known, SamplingOptions, image_seeds
from genstack.prior.order import Halton, Random, Raster
from genstack.prior.random_order import RandomOrder

CLASSES = ClassLabels(("a", "b", "c"), dropout=0.25)
GREEDY = SamplingOptions(temperature=0.0)


def strange(prior):
    """Away from the small weights of the start, so that differences show."""
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.3)
    return prior.eval()


@pytest.fixture
def prior(layout, tiny):
    return strange(RandomOrder(layout, CLASSES, tiny, anneal=(1.0, 1.0)))


@torch.no_grad()
def test_codes_affect_only_later_logits_of_the_order(prior):
    length = prior.layout.length
    codes, labels = torch.randint(11, (2, length)), torch.tensor([0, 2])
    orders = torch.rand(2, length).argsort(1)
    before = prior.logits(codes, labels, orders)
    for turn in range(0, length, 4):
        other = codes.clone()
        rows = torch.arange(2)
        other[rows, orders[:, turn]] = (other[rows, orders[:, turn]] + 1) % 11
        differs = (prior.logits(other, labels, orders) - before).abs().amax(2) > 1e-6
        assert torch.equal(differs, (torch.arange(length) > turn).expand(2, length))


@torch.no_grad()
def test_every_order_is_a_distribution(tiny):
    prior = strange(RandomOrder(CodeLayout((16, 16), 3, ((1, 3),)), CLASSES, tiny))
    every, labels = torch.tensor(list(product(range(3), repeat=3))), torch.zeros(27, dtype=torch.int64)
    totals = {}
    for order in permutations(range(3)):
        orders = torch.tensor(order).expand(27, 3)
        logits = prior.logits(every, labels, orders).log_softmax(-1)
        chances = logits.gather(2, every.gather(1, orders)[:, :, None]).sum((1, 2)).exp()
        assert float(chances.sum()) == pytest.approx(1, abs=1e-4)
        totals[order] = chances
    torch.testing.assert_close(prior.nats(every, labels), -totals[0, 1, 2].log())
    assert (totals[2, 1, 0] - totals[0, 1, 2]).abs().max() > 1e-3


@pytest.mark.parametrize("order", [Raster(), Random(), Halton()], ids=str)
@torch.no_grad()
def test_cached_sampling_agrees_with_full_forwards(order, layout, tiny):
    """Greedy, with known codes of each image, which come first."""
    prior = strange(RandomOrder(layout, CLASSES, tiny, order=order))
    length, labels = layout.length, torch.tensor([0, 1, 2])
    mask = torch.rand(3, length) < torch.tensor([[0.5], [0.3], [0.6]])
    given = torch.randint(11, (3, length))
    seen, logits = [], prior._paths

    def paths(orders):
        seen.append(orders)
        return logits(orders)

    prior._paths = paths
    drawn = prior.sample(labels, GREEDY, image_seeds(4, range(3)), Known(given, mask))
    orders = seen[0]
    assert torch.equal(orders.sort(1).values, torch.arange(length).expand(3, length))
    assert torch.equal(mask.gather(1, orders).long().diff(dim=1) > 0, torch.zeros(3, length - 1) > 0)
    best = prior.logits(drawn, labels, orders).argmax(2)
    free = ~mask.gather(1, orders)
    assert torch.equal(best[free], drawn.gather(1, orders)[free])
    if isinstance(order, Raster):
        inside = torch.where(free, orders, -1)
        assert all(row[row >= 0].diff().gt(0).all() for row in inside)


def test_random_orders_give_way_to_raster_order(tiny):
    layout = CodeLayout((8, 8), 5, ((2, 3),))
    prior = RandomOrder(layout, CLASSES, tiny, anneal=(0.5, 0.75))
    assert prior.randomness == 1
    for progress, expected in [(0.0, 1.0), (0.5, 1.0), (0.625, 0.5), (0.75, 0.0), (0.99, 0.0)]:
        prior.before_step(progress)
        assert prior.randomness == pytest.approx(expected)
    always, never = (RandomOrder(layout, CLASSES, tiny, anneal=(end, end)) for end in (1.0, 0.0))
    for progress in (0.0, 0.999):
        always.before_step(progress)
        never.before_step(progress)
        assert (always.randomness, never.randomness) == (1, 0)


def test_share_of_random_orders_follows_the_schedule(tiny, monkeypatch):
    layout = CodeLayout((8, 8), 5, ((2, 3),))
    prior, seen = RandomOrder(layout, Unconditional(), tiny), []
    monkeypatch.setattr(
        prior, "_cross_entropy", lambda codes, condition, orders: seen.append(orders) or torch.zeros(1, 1)
    )
    for progress, expected in [(0.2, 1.0), (0.625, 0.5), (0.9, 0.0)]:
        prior.before_step(progress)
        prior.loss(torch.zeros(4000, 6, dtype=torch.int64), torch.zeros(4000, dtype=torch.int64))
        shuffled = (seen.pop() != torch.arange(6)).any(1).float().mean()
        assert float(shuffled) == pytest.approx(expected * (1 - 1 / 720), abs=0.04)
    prior.before_step(0.0)
    prior.eval().loss(torch.zeros(9, 6, dtype=torch.int64), torch.zeros(9, dtype=torch.int64))
    assert (seen.pop() == torch.arange(6)).all(), "what is measured is raster order"


def test_inpainting_reads_later_codes(tiny):
    """All codes of an image are equal: with the last one known, the first are drawn like it."""
    layout, none = CodeLayout((16, 16), 4, ((2, 3),)), torch.zeros(64, dtype=torch.int64)
    prior = RandomOrder(layout, Unconditional(), tiny, anneal=(1.0, 1.0))
    optimizer = torch.optim.AdamW(prior.parameters(), 5e-3, weight_decay=0.0)
    for _ in range(50):
        optimizer.zero_grad()
        prior.loss(torch.randint(4, (64, 1)).expand(64, 6), none).backward()
        optimizer.step()
    given = (torch.arange(64) % 4)[:, None].expand(64, 6)
    known = Known(given, (torch.arange(6) == 5).expand(64, 6))
    codes = prior.sample(none, SamplingOptions(), image_seeds(0, range(64)), known)
    assert (codes == given).float().mean() > 0.95


@pytest.mark.parametrize("anneal", [(0.5, 0.4), (-0.1, 1.0), (0.0, 1.5)])
def test_invalid_anneal_is_rejected(anneal, tiny):
    with pytest.raises(ValueError, match=r"anneal must be two shares"):
        RandomOrder(CodeLayout((8, 8), 5, ((2, 3),)), CLASSES, tiny, anneal=anneal)
