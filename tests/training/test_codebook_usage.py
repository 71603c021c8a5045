"""Codebook usage by grid, and the warning of a collapse."""

import pytest
import torch

from genstack.compressor import Autoencoder, Convolutional, HierarchicalAutoencoder, Reconstruction
from genstack.compressor.gaussian import Gaussian
from genstack.compressor.networks.strided import Strided
from genstack.compressor.quantizers import MultiScale, VectorQuantizer
from genstack.compressor.usage import usage
from genstack.data import ImageData
from genstack.dist import gather_rows, gloo_group
from genstack.training.codebook_usage import usage_monitor
from genstack.training.compressor import CompressorTraining

NETWORK = Convolutional(dim=6, width=4, multipliers=(1, 2), blocks=1, attention=(), middle_attention=False)


def single(channels=3, size=64):
    return Autoencoder(channels, NETWORK, VectorQuantizer(size, 4, dead_after=None))


def hierarchy():
    return HierarchicalAutoencoder(3, Strided(dim=6, stride=2, blocks=1, inner=4), VectorQuantizer(64, 4))


def multiscale():
    return Autoencoder(3, NETWORK, MultiScale((1, 2), 64, dim=6))


def seen(codes):
    return Reconstruction(torch.zeros(len(codes), 3, 8, 12), codes, {})


def codes_of(watched, sizes, images=400):
    """Random codes below a size of its own in each grid."""
    return watched.layout.join(
        [
            torch.randint(size, (images, *grid, 1))
            for size, grid in zip(sizes, watched.layout.grids, strict=True)
        ]
    )


@pytest.mark.parametrize("made", [hierarchy, multiscale])
def test_usage_per_grid(made):
    watched = usage_monitor(made(), 8, 12)
    codes = codes_of(watched, (5, 60))
    watched.update(seen(codes))
    watched.after_step(skipped=False)
    for half in codes.split(200):
        watched.update_validation(seen(half))
    grids = [usage(grid.flatten(), 64) for grid in watched.layout.split(codes)]
    trained, held_out = watched.training_metrics(), watched.validation_metrics()
    assert trained == held_out, "the window is longer than what was seen"
    assert trained["usage"] == 60 / 64
    for number, grid in enumerate(grids, 1):
        assert trained[f"usage_grid{number}"] == grid.share == (5, 60)[number - 1] / 64
        assert trained[f"perplexity_grid{number}"] == pytest.approx(grid.perplexity)
    assert watched.validation_metrics()["usage"] == 0, "they are forgotten"


def test_collapsed_grid_with_its_own_codebook_is_reported():
    watched = usage_monitor(hierarchy(), 8, 12)
    watched.update(seen(codes_of(watched, (5, 60))))
    watched.after_step(skipped=False)
    assert watched.training_metrics()["usage"] > 0.9
    assert "only 8% of the codebook of grid 1 of 2 is in use" in watched.warning()


def test_grids_with_a_shared_codebook_give_no_warning():
    watched = usage_monitor(multiscale(), 8, 12)
    watched.update(seen(codes_of(watched, (5, 60))))
    watched.after_step(skipped=False)
    assert watched.warning() == ""


def test_short_window_gives_no_warning():
    """100 of 4,096 codes have been used, but no more than 120 were ever asked for."""
    watched = usage_monitor(single(size=4096), 8, 12)
    watched.update(seen(torch.arange(100).repeat(2)[:120].reshape(5, 24)))
    watched.after_step(skipped=False)
    assert watched.warning() == ""
    watched.update(seen(torch.arange(100).repeat(240).reshape(1000, 24)))
    watched.after_step(skipped=False)
    assert "only 2% of the codebook is in use" in watched.warning()


class Clock:
    """As much of a trainer as the warning reads."""

    def __init__(self, max_steps):
        self.max_steps = max_steps


@pytest.fixture
def training(monkeypatch):
    """A run of 1,000 steps, its moment, and what it has said."""
    training = CompressorTraining(single, ImageData("shapes", resolution=(8, 12), limit=12, batch_size=4))
    said = []
    monkeypatch.setattr(CompressorTraining, "print", lambda self, *words: said.append(*words))
    monkeypatch.setattr(CompressorTraining, "trainer", Clock(1000))

    def warned(step, used):
        training.usage.update(seen(torch.randint(used, (700, 24))))
        training.usage.after_step(skipped=False)
        monkeypatch.setattr(CompressorTraining, "global_step", step)
        training.warn()
        return list(said)

    return warned


def test_unused_codebook_warns_once(training):
    assert training(99, used=12) == [], "it may still warm up"
    (line,) = training(100, used=12)
    assert line.startswith("warning: at step 100 only 19% of the codebook is in use; try ")
    for remedy in ("codebook_size", "dim 8", "dead_after"):
        assert remedy in line
    assert "\n" not in line
    assert training(200, used=12) == [line], "once is enough"


def test_used_codebook_gives_no_warning(training):
    assert training(500, used=13) == []  # 13 of 64 are 20 %


def test_chart_has_one_row_per_grid():
    one, two = (usage_monitor(made(), 8, 12).chart().height for made in (single, hierarchy))
    assert two > one + 96
    assert usage_monitor(Autoencoder(3, NETWORK, Gaussian(dim=4)), 8, 12).chart() is None


def gather(rank):
    with gloo_group(rank, 2):
        return gather_rows(torch.arange((2 + rank) * 3).reshape(2 + rank, 3) + 10 * rank)


@pytest.mark.distributed
def test_codes_of_all_processes_are_counted(in_processes):
    expected = torch.cat([torch.arange(6).reshape(2, 3), torch.arange(9).reshape(3, 3) + 10])
    for found in in_processes(gather):
        assert torch.equal(found, expected)
