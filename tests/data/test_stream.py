"""The order of training: epochs are permutations, any start continues, processes share each step."""

from itertools import islice

import pytest

from genstack.data.stream import Stream, order
from genstack.errors import UserError


@pytest.fixture(autouse=True, params=["kept", "computed"])
def kept(request, monkeypatch):
    """Long permutations are computed place by place; both kinds keep all laws."""
    order.cache_clear()
    if request.param == "computed":
        monkeypatch.setattr("genstack.data.stream.LARGEST_LIST", 0)
    yield
    order.cache_clear()


def take(count, **options):
    return list(islice(Stream(**{"images": 11, "batch_size": 4, "seed": 3, **options}), count))


def test_every_epoch_is_another_permutation():
    pairs = take(44)
    epochs = [[index for epoch, index in pairs if epoch == e] for e in range(4)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert [epoch for epoch, _ in pairs] == sorted(epoch for epoch, _ in pairs)


@pytest.mark.parametrize("start", [0, 1, 7, 11, 30])
def test_a_stream_continues_from_anywhere(start):
    assert take(25, start=start) == take(25 + start)[start:]


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("start", [0, 5])
def test_processes_share_each_step(processes, start):
    """Batch g of process r is the r-th part of the batch that one process would read."""
    whole = take(24 * processes, start=start, batch_size=4 * processes)
    parts = [take(24, start=start, rank=rank, processes=processes) for rank in range(processes)]
    shared = [pair for step in range(6) for part in parts for pair in part[4 * step : 4 * step + 4]]
    assert shared == whole


def test_seeds_differ():
    assert take(11) != take(11, seed=4)


@pytest.mark.parametrize("wrong", [{"images": 0}, {"batch_size": 0}, {"start": -1}, {"rank": 1}])
def test_invalid_streams_are_rejected(wrong):
    with pytest.raises(UserError):
        Stream(**{"images": 3, "batch_size": 1, "seed": 0, **wrong})
