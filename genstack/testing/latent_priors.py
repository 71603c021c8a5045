"""Laws of priors over latents."""

import inspect
import sys
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from genstack.compressor import Autoencoder, Convolutional, Gaussian
from genstack.conditions import ClassLabels, Condition
from genstack.layout import CodeLayout, LatentLayout
from genstack.prior import Known, LatentPrior, SamplingOptions, image_seeds
from genstack.prior.flow_head import Head
from genstack.testing.expect import build as build_part
from genstack.testing.expect import gradients_flow, refusal
from genstack.transformer import Backbone

CLASSES = ClassLabels(("a", "b", "c"), dropout=0.2)
LAYOUT = LatentLayout((16, 24), 3, ((4, 6),))
#: Small values for arguments that priors have, by name.
SIZES: dict[str, Any] = {
    "backbone": Backbone(width=24, depth=2, heads=3, dropout=0.0, adaln="own"),
    "head": Head(24, 1, steps=3),
    "likelihood_steps": 3,
    "masks": 3,
}


class Builder:
    """A kind of prior, built small."""

    def __init__(self, kind: type[LatentPrior], **given: Any):
        known = inspect.signature(kind).parameters
        fitting = {
            name: size
            for name, size in SIZES.items()
            if name in known and isinstance(size, type(known[name].default))
        }
        self.kind, self.small = kind, fitting | given

    def fresh(self, condition: Condition = CLASSES, **changes: Any) -> LatentPrior:
        """A prior that learned nothing."""
        return build_part(self.kind, layout=LAYOUT, condition=condition, **(self.small | changes))

    def __call__(self, condition: Condition = CLASSES, **changes: Any) -> LatentPrior:
        """A prior whose weights all matter."""
        prior = self.fresh(condition, **changes)
        for parameter in prior.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        return prior


def make(part: type[LatentPrior], **given: Any) -> Builder:
    """A builder of small priors."""
    return Builder(part, **given)


def _latents(count: int) -> Tensor:
    """Random latents."""
    return torch.randn(count, *LAYOUT.shape)


def _options(prior: LatentPrior) -> SamplingOptions:
    """Guidance, and few steps if the prior has steps."""
    return SamplingOptions(steps=0 if prior.steps is None else 3, guidance=1.5)


def codes_are_refused_with_a_way_out(build: Builder) -> None:
    """A layout of codes is a UserError that names what would work."""
    with refusal(r"cannot model 12 codes of 7; use a prior of codes such as Autoregressive"):
        build.kind(CodeLayout((16, 24), 7, ((3, 4),)), CLASSES)


def arguments_are_kept(build: Builder) -> None:
    """Every argument of the constructor is an attribute of its name."""
    prior = build()
    assert prior.layout == LAYOUT and prior.condition == CLASSES


def gradients_reach_every_parameter(build: Builder) -> None:
    """One loss trains all weights."""
    prior = build.fresh()
    prior.loss(_latents(16), torch.arange(16) % 3).backward()
    gradients_flow(dict(prior.named_parameters()))


@torch.no_grad()
def measures_of_an_image_are_always_the_same(build: Builder) -> None:
    """Held-out loss, likelihood and latents that are read depend neither on chance nor on the batch."""
    prior, data, labels = build().eval(), _latents(5), torch.arange(5) % 3
    for measure in (prior.held_out_loss, prior.nats):
        together = measure(data, labels)
        assert together.shape == (5,) and torch.equal(measure(data, labels), together)
        alone = [measure(data[[index]], labels[[index]]) for index in range(5)]
        torch.testing.assert_close(torch.cat(alone), together)
    posterior = torch.stack([data, torch.ones_like(data)], dim=1)
    assert torch.equal(prior.read(posterior), prior.read(posterior))
    assert torch.equal(prior.read(posterior[[3]]), prior.read(posterior)[[3]])
    assert 0.9 < (prior.read(posterior) - data).std() < 1.1


def samples_depend_on_their_own_seed_and_condition(build: Builder) -> None:
    """A sample is the same in any batch, and another with another seed or condition."""
    prior, labels, seeds = build(), torch.arange(7) % 3, image_seeds(11, range(7))
    chosen = _options(prior)
    sampled = prior.sample(labels, chosen, seeds)
    assert sampled.shape == (7, *LAYOUT.shape) and sampled.dtype == torch.float32
    parts = zip(labels.split([1, 4, 2]), seeds.split([1, 4, 2]), strict=True)
    alone = torch.cat([prior.sample(label, chosen, seed) for label, seed in parts])
    torch.testing.assert_close(alone, sampled, rtol=1e-4, atol=1e-4)
    other = prior.sample((labels + 1) % 3, chosen, seeds)
    assert (other - sampled).abs().amax() > 1e-2, "the condition steers"
    assert (prior.sample(labels, chosen, image_seeds(12, range(7))) - sampled).abs().amax() > 0.1


def sampling_uses_no_global_generator(build: Builder) -> None:
    """Samples depend on their seeds alone, and leave torch's generator as it is."""
    prior, seeds, state = build(), image_seeds(0, range(2)), torch.get_rng_state()
    first = prior.sample(torch.tensor([0, 1]), _options(prior), seeds)
    assert torch.equal(torch.get_rng_state(), state)
    torch.default_generator.manual_seed(99)
    assert torch.equal(prior.sample(torch.tensor([0, 1]), _options(prior), seeds), first)


def known_latents_stay(build: Builder) -> None:
    """Known latents are kept; they change the others if `context` is "all"."""
    prior, labels, seeds = build(), torch.arange(6) % 3, image_seeds(2, range(6))
    given, mask, chosen = 3 * _latents(6), torch.rand(6, 1, 4, 6) < 0.5, _options(prior)
    mask[0] = False
    sampled = prior.sample(labels, chosen, seeds, Known(given, mask))
    free = prior.sample(labels, chosen, seeds)
    everywhere = mask.expand_as(given)
    assert torch.equal(sampled[everywhere], given[everywhere])
    torch.testing.assert_close(sampled[0], free[0], rtol=1e-4, atol=1e-4)
    other = prior.sample(labels, chosen, seeds, Known(-given, mask))
    changed = (other - sampled)[~everywhere].abs().amax() > 1e-2
    assert changed == (prior.context == "all"), f"context is {prior.context}"
    everything = Known(given, torch.ones_like(mask))
    assert torch.equal(prior.sample(labels, chosen, seeds, everything), given)


def sampling_in_bfloat16_keeps_the_weights(build: Builder) -> None:
    """Sampling under autocast changes no weight, and gives float32 latents."""
    prior = build()
    before = {name: parameter.clone() for name, parameter in prior.named_parameters()}
    with torch.autocast("cpu", torch.bfloat16):
        sampled = prior.sample(torch.arange(3), _options(prior), image_seeds(0, range(3)))
    assert sampled.dtype == torch.float32 and sampled.isfinite().all()
    for name, parameter in prior.named_parameters():
        assert parameter.dtype == torch.float32 and torch.equal(parameter, before[name]), name


def options_of_codes_are_refused(build: Builder) -> None:
    """Latents have no top-k, top-p and min-p."""
    prior = build()
    for changes in ({"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.1}):
        with refusal("does not apply to"):
            prior.check(SamplingOptions(**changes))


def standardization_is_measured_once(build: Builder) -> None:
    """`fit` measures mean and deviation once, or takes published ones; all else that is saved are weights."""
    prior, compressor = build(), _compressor()
    data = torch.stack([5 * _latents(64) + 7, torch.full((64, *LAYOUT.shape), 3.0)], dim=1)
    prior.fit(compressor, data.split(10))
    assert (prior.standardization.mean - 7).abs().max() < 1
    assert (prior.standardization.deviation - (25 + 9) ** 0.5).abs().max() < 0.5
    assert int(prior.standardization.images) == 64
    before = prior.standardization.mean.clone()
    prior.fit(compressor, [data * 2])
    assert torch.equal(prior.standardization.mean, before), "measured before"
    extra = set(prior.state_dict()) - {name for name, _ in prior.named_parameters()}
    assert extra == {f"standardization.{name}" for name in ("mean", "deviation", "images")}
    copy, labels, seeds = build(), torch.tensor([0, 1]), image_seeds(0, range(2))
    copy.load_state_dict(prior.state_dict())
    chosen = _options(prior)
    assert torch.equal(copy.sample(labels, chosen, seeds), prior.sample(labels, chosen, seeds))
    published = build()
    compressor.quantizer.shift, compressor.quantizer.scale = 0.5, 0.25  # type: ignore[assignment]
    published.fit(compressor, [])
    standardization = published.standardization
    assert (standardization.mean == 0.5).all() and (standardization.deviation == 4).all()


@torch.no_grad()
def likelihoods_follow_the_scale_of_the_latents(build: Builder) -> None:
    """Latents of ten times the deviation have ln 10 nats more per number."""
    prior, data, labels = build().eval(), _latents(3), torch.arange(3)
    module = sys.modules[build.kind.__module__]
    with patch.object(module, "hash_latents", lambda latents: torch.arange(len(latents)), create=True):
        small = prior.nats(data, labels)
        prior.standardization.set(2.0, 10.0)
        nats = prior.nats(data * 10 + 2, labels)
    expected = small + data[0].numel() * torch.tensor(10.0).log()
    torch.testing.assert_close(nats, expected, rtol=1e-3, atol=1e-2)


def _compressor() -> Autoencoder:
    return Autoencoder(1, Convolutional(6, 8, (1, 1), 1, (), False), Gaussian(3))
