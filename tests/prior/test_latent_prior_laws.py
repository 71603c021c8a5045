"""Laws of priors over latents; a new file in genstack/prior inherits all of them."""

from dataclasses import replace
from inspect import signature

import pytest
import torch

import genstack.prior
from genstack.conditions import ClassLabels
from genstack.conditions.captions import Captions
from genstack.discovery import discover
from genstack.errors import UserError
from genstack.inputs import ConditionInputs
from genstack.prior import CodePrior, LatentPrior, SamplingOptions, image_seeds
from genstack.prior.mar import Head
from genstack.testing import latent_priors, laws_in
from genstack.testing.latent_priors import CLASSES, LAYOUT, SIZES, Builder

PRIORS = discover(genstack.prior, LatentPrior)
CODES = discover(genstack.prior, CodePrior)
CAPTIONS = Captions(vocabulary=256, length=5, depth=1, heads=3, dropout=0.2)
WORDS = ("ab", "cdefg", "", "gfedc")


def latents(count):
    return torch.randn(count, *LAYOUT.shape)


def values(words):
    """Captions as a prior reads them."""
    return CAPTIONS.encode(ConditionInputs(torch.zeros(len(words), dtype=torch.int64), tuple(words)))


def crossed(build, cross_attention=True):
    """A prior that reads captions, by cross-attention or not."""
    return build(CAPTIONS, backbone=replace(SIZES["backbone"], cross_attention=cross_attention))


@pytest.fixture(params=PRIORS.values(), ids=PRIORS.keys())
def build(request):
    """Every prior in its folder, built small."""
    return Builder(request.param)


def test_flow_matching_is_one():
    assert "FlowMatching" in PRIORS


@pytest.mark.parametrize("law", laws_in(latent_priors), ids=lambda law: law.__name__)
def test_prior_keeps_the_law(build, law):
    law(build)


@pytest.mark.parametrize("codes", CODES.values(), ids=CODES.keys())
def test_priors_of_codes_refuse_latents_with_a_way_out(codes):
    with pytest.raises(
        UserError, match=r"cannot model latents of 4x6, 3 channels; use the prior FlowMatching"
    ):
        codes(LAYOUT, CLASSES)


def test_sampling_reports_its_progress(build):
    steps: list[float] = []
    build().sample(torch.arange(3), SamplingOptions(), image_seeds(0, range(3)), report=steps.append)
    assert steps[0] == 0 and steps == sorted(steps) and steps[-1] == 1


def test_gradients_reach_cross_attention(build):
    prior = crossed(build)
    prior.loss(latents(16), values(WORDS * 4)).backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_samples_depend_on_their_own_caption(build):
    for across in (True, False):
        prior, seeds = crossed(build, across), image_seeds(3, range(4))
        chosen = SamplingOptions(steps=3, guidance=1.5)
        together = prior.sample(values(WORDS), chosen, seeds)
        alone = [prior.sample(values([word]), chosen, seeds[[row]]) for row, word in enumerate(WORDS)]
        torch.testing.assert_close(torch.cat(alone), together, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(prior.sample(values(("xyz",) * 4), chosen, seeds), together)


@pytest.mark.slow
def test_prior_memorizes_a_few_images(build, tiny):
    condition, data = ClassLabels(("a", "b", "c", "d"), dropout=0.0), latents(4)
    torch.manual_seed(0)
    head = {"head": Head(64, 2, repeats=2)} if "head" in signature(build.kind).parameters else {}
    prior = build.kind(LAYOUT, condition, replace(tiny, adaln="own", width=48), **head)
    optimizer = torch.optim.AdamW(prior.parameters(), 4e-3, betas=(0.9, 0.95), weight_decay=0.0)
    labels = torch.arange(4)
    steps = 120 if head else 250  # MAR learns from each masked position
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - step / steps)
        optimizer.zero_grad()
        prior.loss(data.repeat(4, 1, 1, 1), labels.repeat(4)).backward()
        optimizer.step()
    again = prior.eval().sample(labels, SamplingOptions(), image_seeds(0, range(4)))
    nearest = (again[:, None] - data[None]).square().flatten(2).mean(2)
    assert torch.equal(nearest.argmin(dim=1), labels)
    assert nearest.diagonal().mean() < 0.15
