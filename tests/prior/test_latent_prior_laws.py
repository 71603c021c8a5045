"""Laws of priors over latents; a new file in genstack/prior inherits all of them."""

import inspect
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

import genstack.prior
from genstack.conditions import ClassLabels
from genstack.conditions.captions import Captions
from genstack.discovery import discover
from genstack.errors import UserError
from genstack.inputs import ConditionInputs
from genstack.layout import CodeLayout, LatentLayout
from genstack.prior import CodePrior, Known, LatentPrior, SamplingOptions, image_seeds
from genstack.prior.mar import Head

PRIORS = discover(genstack.prior, LatentPrior)
CODES = discover(genstack.prior, CodePrior)
CLASSES = ClassLabels(("a", "b", "c"), dropout=0.2)
CAPTIONS = Captions(vocabulary=256, length=5, depth=1, heads=3, dropout=0.2)
WORDS = ("ab", "cdefg", "", "gfedc")
LAYOUT = LatentLayout((16, 24), 3, ((4, 6),))
OPTIONS = SamplingOptions(steps=3, guidance=1.5)


def values(words):
    """Captions as a prior reads them."""
    return CAPTIONS.encode(ConditionInputs(torch.zeros(len(words), dtype=torch.int64), tuple(words)))


@pytest.fixture(params=PRIORS.values(), ids=PRIORS.keys())
def kind(request):
    return request.param


@pytest.fixture
def build(kind, tiny):
    """Every prior in its folder, built small, with weights that matter."""

    def built(condition=CLASSES, std=0.2, **changes):
        prior = kind(LAYOUT, condition, replace(tiny, adaln="own", **changes), **small(kind))
        for parameter in prior.parameters():
            torch.nn.init.normal_(parameter, std=std)
        return prior

    return built


def small(kind) -> dict[str, Any]:
    """Values that make measures fast, for the arguments that a prior has."""
    values = {"likelihood_steps": 3, "masks": 3, "head": Head(24, 1, steps=3)}
    return {name: value for name, value in values.items() if name in inspect.signature(kind).parameters}


def latents(count: int) -> torch.Tensor:
    return torch.randn(count, *LAYOUT.shape)


def test_flow_matching_is_one():
    assert "FlowMatching" in PRIORS


def test_codes_are_refused_with_a_way_out(kind):
    with pytest.raises(UserError, match=r"cannot model 12 codes of 7; use a prior of codes such as Auto"):
        kind(CodeLayout((16, 24), 7, ((3, 4),)), CLASSES)


@pytest.mark.parametrize("codes", CODES.values(), ids=CODES.keys())
def test_priors_of_codes_refuse_latents_with_a_way_out(codes):
    with pytest.raises(
        UserError, match=r"cannot model latents of 4x6, 3 channels; use the prior FlowMatching"
    ):
        codes(LAYOUT, CLASSES)


def test_arguments_are_kept_under_their_names(build):
    prior = build()
    assert prior.layout == LAYOUT and prior.condition == CLASSES
    for name in inspect.signature(type(prior)).parameters:
        assert hasattr(prior, name), f"{type(prior).__name__} does not keep its argument {name}"


def test_gradients_reach_every_parameter(kind, tiny):
    prior = kind(LAYOUT, CLASSES, replace(tiny, adaln="own"))
    prior.loss(latents(16), torch.arange(16) % 3).backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_gradients_reach_cross_attention(build):
    prior = build(CAPTIONS, cross_attention=True)
    prior.loss(latents(16), values(WORDS * 4)).backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@torch.no_grad()
def test_measures_of_an_image_are_always_the_same(build):
    prior, data, labels = build().eval(), latents(5), torch.arange(5) % 3
    for measure in (prior.held_out_loss, prior.nats):
        together = measure(data, labels)
        assert torch.equal(measure(data, labels), together)
        alone = [measure(data[[index]], labels[[index]]) for index in range(5)]
        torch.testing.assert_close(torch.cat(alone), together)
    posterior = torch.stack([data, torch.ones_like(data)], dim=1)
    assert torch.equal(prior.read(posterior), prior.read(posterior))
    assert torch.equal(prior.read(posterior[[3]]), prior.read(posterior)[[3]])
    assert 0.9 < (prior.read(posterior) - data).std() < 1.1


def test_samples_depend_only_on_their_seed_and_condition(build):
    prior, labels, seeds = build(), torch.arange(7) % 3, image_seeds(11, range(7))
    sampled = prior.sample(labels, OPTIONS, seeds)
    assert sampled.shape == (7, *LAYOUT.shape) and sampled.dtype == torch.float32
    parts = zip(labels.split([1, 4, 2]), seeds.split([1, 4, 2]), strict=True)
    alone = torch.cat([prior.sample(label, OPTIONS, seed) for label, seed in parts])
    torch.testing.assert_close(alone, sampled, rtol=1e-4, atol=1e-4)
    other = prior.sample((labels + 1) % 3, OPTIONS, seeds)
    assert (other - sampled).abs().amax() > 1e-2, "the condition steers"
    assert (prior.sample(labels, OPTIONS, image_seeds(12, range(7))) - sampled).abs().amax() > 0.1


def test_samples_depend_on_their_own_caption(build):
    for across in (True, False):
        prior, seeds = build(CAPTIONS, cross_attention=across), image_seeds(3, range(4))
        together = prior.sample(values(WORDS), OPTIONS, seeds)
        alone = [prior.sample(values([word]), OPTIONS, seeds[[row]]) for row, word in enumerate(WORDS)]
        torch.testing.assert_close(torch.cat(alone), together, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(prior.sample(values(("xyz",) * 4), OPTIONS, seeds), together)


def test_sampling_is_independent_of_the_global_generator(build):
    prior, seeds, state = build(), image_seeds(0, range(2)), torch.get_rng_state()
    first = prior.sample(torch.tensor([0, 1]), OPTIONS, seeds)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(prior.sample(torch.tensor([0, 1]), OPTIONS, seeds), first)


def test_known_latents_are_kept_and_affect_the_others(build):
    prior, labels, seeds = build(), torch.arange(6) % 3, image_seeds(2, range(6))
    given, mask = 3 * latents(6), torch.rand(6, 1, 4, 6) < 0.5
    mask[0] = False
    sampled = prior.sample(labels, OPTIONS, seeds, Known(given, mask))
    free = prior.sample(labels, OPTIONS, seeds)
    everywhere = mask.expand_as(given)
    assert torch.equal(sampled[everywhere], given[everywhere])
    torch.testing.assert_close(sampled[0], free[0], rtol=1e-4, atol=1e-4)
    other = prior.sample(labels, OPTIONS, seeds, Known(-given, mask))
    assert (other - sampled)[~everywhere].abs().amax() > 1e-2 and prior.context == "all"
    everything = Known(given, torch.ones_like(mask))
    assert torch.equal(prior.sample(labels, OPTIONS, seeds, everything), given)


def test_sampling_in_bfloat16_restores_the_weights(build):
    prior = build()
    before = {name: parameter.clone() for name, parameter in prior.named_parameters()}
    with torch.autocast("cpu", torch.bfloat16):
        sampled = prior.sample(torch.arange(3), OPTIONS, image_seeds(0, range(3)))
    assert sampled.dtype == torch.float32 and sampled.isfinite().all()
    for name, parameter in prior.named_parameters():
        assert parameter.dtype == torch.float32 and torch.equal(parameter, before[name])


@pytest.mark.parametrize("changes", [{"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.1}])
def test_options_of_codes_are_refused(build, changes):
    with pytest.raises(UserError, match="does not apply to"):
        build().check(SamplingOptions(**changes))


def test_standardization_is_measured_once_and_is_the_only_other_state(build, compressor):
    prior = build()
    data = torch.stack([5 * latents(64) + 7, torch.full((64, *LAYOUT.shape), 3.0)], dim=1)
    prior.fit(compressor, data.split(10))
    assert (prior.standardization.mean - 7).abs().max() < 1
    assert (prior.standardization.deviation - (25 + 9) ** 0.5).abs().max() < 0.5
    assert int(prior.standardization.images) == 64
    before = prior.standardization.mean.clone()
    prior.fit(compressor, [data * 2])
    assert torch.equal(prior.standardization.mean, before), "measured before"
    extra = set(prior.state_dict()) - {name for name, _ in prior.named_parameters()}
    assert extra == {f"standardization.{name}" for name in ("mean", "deviation", "images")}
    copy = build()
    copy.load_state_dict(prior.state_dict())
    seeds = image_seeds(0, range(2))
    labels = torch.tensor([0, 1])
    assert torch.equal(copy.sample(labels, OPTIONS, seeds), prior.sample(labels, OPTIONS, seeds))


def test_published_standardization_is_used(build, compressor):
    prior = build()
    compressor.quantizer.shift, compressor.quantizer.scale = 0.5, 0.25
    prior.fit(compressor, [])
    assert (prior.standardization.mean == 0.5).all() and (prior.standardization.deviation == 4).all()


def test_likelihoods_do_not_depend_on_the_scale_of_the_latents(build, kind, monkeypatch):
    """Latents of ten times the deviation have ln 10 nats more per number."""
    prior, data, labels = build().eval(), latents(3), torch.arange(3)
    monkeypatch.setattr(sys.modules[kind.__module__], "hash_latents", lambda latents: torch.arange(3))
    small = prior.nats(data, labels)
    prior.standardization.set(2.0, 10.0)
    nats = prior.nats(data * 10 + 2, labels)
    expected = small + data[0].numel() * torch.tensor(10.0).log()
    torch.testing.assert_close(nats, expected, rtol=1e-3, atol=1e-2)


@pytest.fixture
def compressor():
    from genstack.compressor import Autoencoder, Convolutional, Gaussian

    return Autoencoder(1, Convolutional(6, 8, (1, 1), 1, (), False), Gaussian(3))


@pytest.mark.slow
def test_prior_memorizes_a_few_images(kind, tiny):
    condition, data = ClassLabels(("a", "b", "c", "d"), dropout=0.0), latents(4)
    torch.manual_seed(0)
    prior = kind(LAYOUT, condition, replace(tiny, adaln="own", width=48))
    optimizer = torch.optim.AdamW(prior.parameters(), 4e-3, betas=(0.9, 0.95), weight_decay=0.0)
    labels = torch.arange(4)
    for step in range(250):
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - step / 250)
        optimizer.zero_grad()
        prior.loss(data.repeat(8, 1, 1, 1), labels.repeat(8)).backward()
        optimizer.step()
    again = prior.eval().sample(labels, SamplingOptions(), image_seeds(0, range(4)))
    nearest = (again[:, None] - data[None]).square().flatten(2).mean(2)
    assert torch.equal(nearest.argmin(dim=1), labels)
    assert nearest.diagonal().mean() < 0.15
