"""Networks are compiled when a timed batch shows that it pays, and no longer when it does not."""

from contextlib import contextmanager

import pytest
import torch

from genstack.sampling import compilation
from genstack.sampling.compilation import BATCHES, Compilation


class Machine:
    """A clock and a compiler: a batch takes `plain` seconds, a compiled one `quick`."""

    def __init__(self, plain, quick):
        self.plain, self.quick, self.now = plain, quick, 0.0
        self.compiled, self.sizes, self.entered = False, [], 0

    def monotonic(self):
        return self.now

    @contextmanager
    def context(self):
        self.compiled, self.waiting = True, 40.0
        self.entered += 1
        yield
        self.compiled = False

    def draw(self, indices):
        self.sizes.append(len(indices))
        self.now += self.quick + self.waiting if self.compiled else self.plain
        self.waiting = 0.0
        return torch.tensor(indices)


@pytest.fixture
def run(monkeypatch, capsys):
    def sampled(machine, mode, count=11, size=2, obstacle=""):
        monkeypatch.setattr(compilation, "time", machine)
        batches = [range(count)[first : first + size] for first in range(0, count, size)]
        with Compilation(mode, len(batches), machine.context, lambda: obstacle) as chosen:
            found = [chosen.sample(machine.draw, batch, size) for batch in batches]
        assert torch.cat(found).tolist() == [*range(count)] and not machine.compiled
        assert chosen.used is bool(machine.entered)
        return capsys.readouterr().err

    return sampled


@pytest.mark.parametrize(("mode", "sizes"), [(True, [2] * 6), (False, [2] * 5 + [1])])
def test_always_and_never(run, mode, sizes):
    machine = Machine(BATCHES.worthwhile, 1.0)
    run(machine, mode)
    assert machine.sizes == sizes and machine.entered == int(mode)


def test_few_seconds_are_not_worth_it(run):
    machine = Machine(BATCHES.worthwhile / 6, 1.0)
    assert run(machine, "auto") == "" and machine.entered == 0


def test_minutes_are_worth_it(run):
    machine = Machine(BATCHES.worthwhile / 4, 1.0)
    told = run(machine, "auto")
    assert told == "compiling: 5 more batches would take 3.1 minutes; --compile false leaves it out\n"
    assert machine.entered == 1 and machine.sizes == [2] * 6


def test_one_batch_decides_nothing(run):
    machine = Machine(10 * BATCHES.worthwhile, 1.0)
    assert run(machine, "auto", count=2) == "" and machine.entered == 0


def test_sampling_continues_without_a_compiler(run):
    machine = Machine(BATCHES.worthwhile, 1.0)
    told = run(machine, "auto", obstacle="there is no g++ for C++")
    assert told.startswith("not compiled: 5 more batches") and told.endswith("but there is no g++ for C++\n")
    assert machine.entered == 0


def test_slower_batches_end_it(run):
    machine = Machine(BATCHES.worthwhile, 2 * BATCHES.worthwhile)
    told = run(machine, "auto").splitlines()[-1]
    assert told == "no longer compiled: a batch took 2.00 of its time before"
    assert machine.entered == 1 and machine.now == BATCHES.worthwhile * (1 + 2 * 2 + 3) + 40
