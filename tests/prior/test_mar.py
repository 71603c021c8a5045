"""MAR on a Gaussian, whose conditional distributions and likelihood are known."""

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from genstack.conditions import ClassLabels, Unconditional
from genstack.errors import UserError
from genstack.layout import LatentLayout
from genstack.prior import Known, SamplingOptions, image_seeds
from genstack.prior.flow_head import Head
from genstack.prior.mar import MAR
from genstack.prior.mask_schedule import MaskSchedule
from genstack.prior.order import Halton, Raster

LAYOUT = LatentLayout((8, 16), 1, ((1, 2),))
MEAN = torch.tensor([1.0, -2.0])
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.8]])
NOTHING = torch.zeros(1, dtype=torch.int64)


class Conditionals(nn.Module):
    """Mean and variance of each masked position given the other one, where it is known."""

    def encode_condition(self, condition):
        return None

    def forward(self, values, masked, selected, encoded):
        other, known = values[..., 0].flip(1), ~masked.flip(1)
        variance = COVARIANCE.diagonal()
        gain = COVARIANCE[0, 1] / variance.flip(0)
        mean = MEAN + known * gain * (other - MEAN.flip(0))
        left = variance - known * gain * COVARIANCE[0, 1]
        return torch.stack([mean, left], dim=-1)[selected]


class ExactVelocity(nn.Module):
    """The velocity of a path from the standard normal to a normal of this mean and variance."""

    def __init__(self):
        super().__init__()
        self.anything = nn.Parameter(torch.zeros(1))

    def forward(self, features, x, times):
        mean, variance = features[:, :1], features[:, 1:]
        t = times[:, None]
        gain = (t * variance - (1 - t)) / (t**2 * variance + (1 - t) ** 2)
        return mean + (x - t * mean) * gain


@pytest.fixture
def exact(tiny):
    prior = MAR(LAYOUT, Unconditional(), tiny, head=Head(steps=60, solver="heun"), masks=48).eval()
    prior.network, prior.flow = Conditionals(), ExactVelocity()
    return prior


@pytest.mark.parametrize("steps", [1, 2])
def test_samples_have_the_covariance_if_positions_follow_each_other(exact, steps):
    samples = exact.sample(NOTHING.expand(4000), SamplingOptions(steps=steps), image_seeds(0, range(4000)))
    covariance = torch.cov(samples.flatten(1).T)
    expected = COVARIANCE if steps == 2 else COVARIANCE.diagonal().diag()  # in one step, independent
    torch.testing.assert_close(samples.flatten(1).mean(0), MEAN, atol=0.06, rtol=0)
    torch.testing.assert_close(covariance, expected, atol=0.07, rtol=0)


@pytest.mark.slow
def test_the_bound_of_exact_conditionals_is_the_likelihood(exact):
    exact.likelihood_steps = 24
    torch.manual_seed(0)
    distribution = MultivariateNormal(MEAN, COVARIANCE)
    data = distribution.sample((30,))
    nats = exact.nats(data.view(-1, 1, 1, 2), NOTHING.expand(30))
    assert float((nats + distribution.log_prob(data)).mean().abs()) < 0.05


@pytest.mark.slow
def test_known_latents_give_the_conditional_distribution(exact):
    mask = torch.tensor([False, True]).view(1, 1, 1, 2).expand(3000, 1, 1, 2)
    known = Known(torch.full((3000, 1, 1, 2), -1.0), mask)
    samples = exact.sample(NOTHING.expand(3000), SamplingOptions(), image_seeds(0, range(3000)), known)
    free = samples[:, 0, 0, 0]
    assert float(free.mean()) == pytest.approx(1 + 0.6 / 0.8 * 1, abs=0.05)
    assert float(free.var()) == pytest.approx(1 - 0.36 / 0.8, abs=0.05)


class OfCondition(nn.Module):
    """The feature 1 for a class, and 0 without one."""

    def encode_condition(self, condition):
        return (condition == 0).float()

    def forward(self, values, masked, selected, encoded):
        return encoded[:, None, None].expand(*selected.shape, 1)[selected]


class OfFeatures(nn.Module):
    """The features as the velocity."""

    def __init__(self):
        super().__init__()
        self.anything = nn.Parameter(torch.zeros(1))

    def forward(self, features, x, times):
        return features.expand_as(x)


@pytest.mark.parametrize("peak", ["last", "end"])
def test_guidance_follows_its_schedule(peak, tiny):
    """Positions of a later step have more of it."""
    prior = MAR(LAYOUT, ClassLabels(("a",), dropout=0.5), tiny, order=Raster())
    prior.network, prior.flow = OfCondition(), OfFeatures()
    labels, seeds = NOTHING.expand(3), image_seeds(0, range(3))
    noise = prior.sample(labels, SamplingOptions(guidance=0.0), seeds)  # nothing moves it
    options = SamplingOptions(guidance=3.0, guidance_schedule="linear", guidance_peak=peak, steps=2)
    added = prior.sample(labels, options, seeds) - noise
    expected = torch.tensor([1.0, 3.0 if peak == "last" else 2.0]).expand_as(added)
    torch.testing.assert_close(added, expected)


def test_orders_and_patches(tiny):
    layout, schedule = LatentLayout((32, 32), 3, ((4, 4),)), MaskSchedule(steps=3)
    prior = MAR(layout, Unconditional(), tiny, patch=2, order=Halton(), schedule=schedule)
    samples = prior.sample(NOTHING.expand(2), SamplingOptions(), image_seeds(0, range(2)))
    assert samples.shape == (2, 3, 4, 4) and samples.isfinite().all()


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="repeats of the head must be at least 1, got 0"):
        Head(repeats=0)
