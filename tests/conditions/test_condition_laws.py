"""Laws of conditions; a new file in genstack/conditions inherits all of it."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import genstack.conditions
import genstack.prior
from genstack.compressor import Autoencoder, Strided
from genstack.compressor.quantizers import VectorQuantizer
from genstack.conditions import Condition
from genstack.discovery import discover
from genstack.layout import CodeLayout
from genstack.prior import Autoregressive, LatentPrior, SamplingOptions, image_seeds
from genstack.testing import conditions, latent_priors, laws_in
from genstack.transformer import Backbone

CONDITIONS = discover(genstack.conditions, Condition)
LATENT_PRIORS = discover(genstack.prior, LatentPrior)
LAYOUT = CodeLayout((16, 24), 6, ((2, 4),))


@pytest.fixture(params=CONDITIONS.values(), ids=CONDITIONS.keys())
def condition(request) -> Condition:
    return conditions.make(request.param, **required(request))


def required(request) -> dict[str, Any]:
    """Arguments that a condition needs."""
    if request.param.__name__ == "EncodedCaptions":
        return {"encoder": str(request.getfixturevalue("text_encoder"))}
    if request.param.__name__ == "ImageCodes":
        network = Autoencoder(3, Strided(8, 4, 1, 8), VectorQuantizer(16, 4)).eval()
        return {"network": network.requires_grad_(False)}
    return {}


def test_conditions_are_discovered():
    expected = {
        "Captions",
        "ClassLabels",
        "ConditionImage",
        "Coordinates",
        "EncodedCaptions",
        "ImageCodes",
        "Unconditional",
    }
    assert expected <= set(CONDITIONS)


@pytest.mark.parametrize("law", laws_in(conditions), ids=lambda law: law.__name__)
def test_condition_keeps_the_law(condition, law):
    law(condition)


@pytest.mark.slow
def test_a_prior_follows_it_and_guidance_amplifies_it(condition):
    """Low has codes below 3 mostly, high the others."""
    if condition.dropout == 0:
        return
    known = conditions.inputs(32)
    values, high = condition.encode(known), known.labels[:, None]
    prior = Autoregressive(LAYOUT, replace(condition, dropout=0.3), Backbone(32, 2, 4, dropout=0.0))
    optimizer = torch.optim.AdamW(prior.parameters(), 3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        odd = (torch.rand(32, LAYOUT.length) < 0.2).long()
        prior.loss(torch.randint(3, (32, LAYOUT.length)) + 3 * (high ^ odd), values).backward()
        optimizer.step()
    shares, many = [], values.repeat(4, *[1] * (values.ndim - 1))
    for guidance in (0.0, 1.0, 3.0):
        codes = prior.sample(many, SamplingOptions(guidance=guidance), image_seeds(0, range(128)))
        shares.append(((codes >= 3) == (high.repeat(4, 1) == 1)).float().mean())
    assert 0.3 < shares[0] < 0.7 and shares[1] > 0.7 and shares[2] > shares[1] + 0.03


@pytest.mark.parametrize("kind", LATENT_PRIORS.values(), ids=LATENT_PRIORS.keys())
def test_priors_over_latents_follow_it(condition, kind):
    """An image depends on its own values, alone and in a batch; guidance has an effect."""
    prior, seeds = latent_priors.make(kind)(condition), image_seeds(0, range(4))
    values = condition.encode(conditions.inputs(4))
    latents = torch.randn(4, *latent_priors.LAYOUT.shape)
    prior.loss(latents, values).backward()
    read = {name: each for name, each in prior.named_parameters() if ".prefix." in name}
    assert all(each.grad is not None and each.grad.isfinite().all() for each in read.values())
    options = SamplingOptions(steps=2)
    together = prior.sample(values, options, seeds)
    alone = [prior.sample(values[[row]], options, seeds[[row]]) for row in range(4)]
    torch.testing.assert_close(torch.cat(alone), together, rtol=1e-4, atol=1e-4)
    if condition.dropout:
        other = prior.sample(condition.null(values), options, seeds)
        guided = prior.sample(values, replace(options, guidance=3.0), seeds)
        assert (other - together).flatten(1).abs().amax(dim=1).min() > 1e-3
        assert (guided - together).flatten(1).abs().amax(dim=1).min() > 1e-3
