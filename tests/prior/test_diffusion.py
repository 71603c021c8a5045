"""Absorbing diffusion, beyond the laws of every prior."""

from itertools import product

import pytest
import torch
from scipy.stats import chisquare

from genstack.conditions import ClassLabels, Unconditional
from genstack.layout import CodeLayout
from genstack.prior import Known, SamplingOptions, image_seeds
from genstack.prior.diffusion import Diffusion
from genstack.transformer.head import ScaledEmbedding

CLASSES = ClassLabels(("a", "b", "c"), dropout=0.25)
SMALL = CodeLayout((8, 16), 3, ((1, 3),))
EVERY = torch.tensor(list(product(range(3), repeat=3)))


def knowing(prior, chances):
    """A network that gives the exact conditionals of a distribution over EVERY."""

    def forward(codes, masked, selected, encoded):
        fits = (EVERY.eq(codes[:, None]) | masked[:, None]).all(-1).double() * chances
        of_each = torch.stack([(fits[:, :, None] * EVERY.eq(code)).sum(1) for code in range(3)], -1)
        return (of_each / fits.sum(1)[:, None, None]).log().float()[selected]

    prior.network.forward = forward
    return prior


def frequencies(codes):
    return torch.bincount(codes @ torch.tensor([9, 3, 1]), minlength=27)


@pytest.fixture
def chances():
    return torch.randn(27, dtype=torch.float64).softmax(0)


@pytest.fixture
def oracle(tiny, chances):
    return knowing(Diffusion(SMALL, Unconditional(), tiny), chances)


def test_ideal_network_samples_the_distribution(oracle, chances):
    count = 4000
    none, seeds = torch.zeros(count, dtype=torch.int64), image_seeds(0, range(count))
    codes = oracle.sample(none, SamplingOptions(steps=100), seeds)
    assert chisquare(frequencies(codes).numpy(), (chances * count).numpy()).pvalue > 1e-3
    hasty = oracle.sample(none, SamplingOptions(steps=1), seeds)
    assert chisquare(frequencies(hasty).numpy(), (chances * count).numpy()).pvalue < 1e-3, (
        "at once is too rash"
    )


def test_known_codes_condition_the_others(oracle, chances):
    """The last code is known: the first two follow their conditional distribution."""
    count = 2000
    none, seeds = torch.zeros(count, dtype=torch.int64), image_seeds(1, range(count))
    known = Known(torch.full((count, 3), 2), torch.tensor([False, False, True]).expand(count, 3))
    codes = oracle.sample(none, SamplingOptions(steps=100), seeds, known)
    given = torch.where(EVERY[:, 2] == 2, chances, 0.0)
    observed, expected = frequencies(codes), given / given.sum() * count
    assert (codes[:, 2] == 2).all()
    assert chisquare(observed[given > 0].numpy(), expected[given > 0].numpy()).pvalue > 1e-3


def test_codes_appear_at_uniform_times(tiny, monkeypatch):
    """From t to s a masked code appears with probability (t - s) / t: a quarter in each of four steps."""
    layout = CodeLayout((64, 64), 3, ((8, 8),))
    prior, hidden_counts = Diffusion(layout, Unconditional(), tiny), []

    def forward(codes, masked, selected, encoded):
        hidden_counts.append((int(masked.sum()), int(selected.sum())))
        return torch.zeros(int(selected.sum()), 3)

    monkeypatch.setattr(prior.network, "forward", forward)
    prior.sample(torch.zeros(100, dtype=torch.int64), SamplingOptions(steps=4), image_seeds(0, range(100)))
    for step, (masked, appear) in enumerate(hidden_counts):
        chance = 1 / (4 - step)
        assert abs(appear - masked * chance) <= 5 * (masked * chance * (1 - chance)) ** 0.5
    assert len(hidden_counts) == 4 and hidden_counts[0][0] == 6400


def test_the_loss_is_the_bound_per_code(tiny):
    prior = Diffusion(SMALL, CLASSES, tiny, masks=20).eval()
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    assert isinstance(prior.network.codes, ScaledEmbedding)
    prior.network.codes.weight.data /= prior.network.codes.scale
    codes, labels = torch.randint(3, (500, 3)), torch.arange(500) % 3
    with torch.no_grad():
        loss = prior.loss(codes.repeat(40, 1), labels.repeat(40))
        assert float(loss) == pytest.approx(float(prior.nats(codes, labels).mean() / 3), rel=0.03)


def test_settings_out_of_range_are_refused(tiny):
    with pytest.raises(ValueError, match="steps and masks must be at least 1, got 0 and 8"):
        Diffusion(SMALL, CLASSES, tiny, steps=0)
