"""Laws of priors over codes."""

import inspect
import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor

from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers.multiscale import MultiScale
from genstack.conditions import ClassLabels, Condition
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior import CodePrior, Known, SamplingOptions, image_seeds
from genstack.prior.exact import Exact
from genstack.prior.symbols import Categorical, Distribution, IndependentBits
from genstack.testing.expect import build
from genstack.transformer import Backbone
from genstack.transformer.head import ScaledEmbedding, from_bits

CLASSES = ClassLabels(("a", "b", "c"), dropout=0.2)
#: One grid, two grids, two symbols at a place, and one row: a prior takes at least one of them.
LAYOUTS = (
    CodeLayout((24, 40), 11, ((3, 5),)),
    CodeLayout((24, 32), 11, ((1, 2), (3, 4))),
    CodeLayout((16, 24), 11, ((2, 3),), depth=2),
    CodeLayout((32, 32), 11, ((1, 9),)),
)
#: The same number of codes on one grid, on two, and at two depths.
SMALL = (
    CodeLayout((16, 24), 6, ((2, 4),)),
    CodeLayout((16, 24), 6, ((1, 2), (2, 3))),
    CodeLayout((16, 24), 6, ((2, 2),), depth=2),
)
#: Layouts of which all sequences can be tried.
SMALLEST = (
    CodeLayout((16, 16), 3, ((2, 2),)),
    CodeLayout((16, 16), 3, ((1, 1), (1, 3))),
    CodeLayout((16, 16), 3, ((1, 2),), depth=2),
)
TINY = Backbone(width=24, depth=2, heads=3, dropout=0.0)
#: Small values for arguments that priors have, by name.
SIZES: dict[str, Any] = {
    "backbone": TINY,
    "finer": TINY,
    "width": 24,
    "blocks": 2,
    "layers": 2,
    "heads": 3,
    "dropout": 0.0,
}


class Builder:
    """A kind of prior, built small and attached to a compressor with random weights."""

    def __init__(self, kind: type[CodePrior], **given: Any):
        known = inspect.signature(kind).parameters
        self.kind = kind
        self.small = {name: size for name, size in SIZES.items() if name in known} | given
        self.compressors: dict[CodeLayout, Autoencoder] = {}

    def __call__(self, layout: CodeLayout, condition: Condition) -> CodePrior:
        prior = build(self.kind, layout=layout, condition=condition, **self.small)
        if layout not in self.compressors:
            quantizer = MultiScale(tuple(range(1, len(layout.grids) + 1)), layout.codebook_size, 5)
            network = Convolutional(8, 8, (1, 1, 1, 1), 1, (), False)
            self.compressors[layout] = Autoencoder(1, network, quantizer)
        prior.attach(self.compressors[layout])
        return prior

    def refusal(self, layout: CodeLayout) -> str:
        """Why the prior refuses a layout; empty if it does not."""
        try:
            self.kind(layout, CLASSES, **self.small)
        except UserError as error:
            return str(error)
        return ""

    def fitting(self, layouts: tuple[CodeLayout, ...]) -> CodeLayout:
        """The first of some layouts that the prior takes."""
        return next(layout for layout in layouts if not self.refusal(layout))

    def priors(self) -> Iterator[CodePrior]:
        """A prior over each layout that it takes."""
        for layout in LAYOUTS:
            if not self.refusal(layout):
                yield self(layout, CLASSES)


def make(part: type[CodePrior], **given: Any) -> Builder:
    """A builder of small priors."""
    return Builder(part, **given)


@torch.no_grad()
def _randomize(prior: CodePrior) -> None:
    """Initialize all parameters with standard deviation 0.4, measured after the scale of embeddings."""
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    for module in prior.modules():
        if isinstance(module, ScaledEmbedding):
            module.weight /= module.scale


def _few_steps(prior: CodePrior, **options: Any) -> SamplingOptions:
    """Sampling options with few steps where the prior has a number of them, since its default is slow."""
    return SamplingOptions(**options, steps=9 if prior.steps else 0)


def _has_outputs_of_its_own(part: torch.nn.Module) -> bool:
    """Return True for a distribution, unless its outputs are logits of codes or bits."""
    return isinstance(part, Distribution) and not isinstance(part, Categorical | IndependentBits)


def _every_sequence(layout: CodeLayout) -> Tensor:
    """All sequences of codes of a small layout."""
    return torch.tensor(list(product(range(layout.codebook_size), repeat=layout.length)))


def impossible_layouts_are_refused_with_a_way_out(build: Builder) -> None:
    """A layout that the prior cannot model is a UserError that names what would work."""
    for layout in SMALL:
        refusal = build.refusal(layout)
        assert not refusal or ("Autoregressive" in refusal and len(refusal) < 300)


@torch.no_grad()
def loss_starts_at_the_uniform_distribution(build: Builder) -> None:
    """A prior that learned nothing has the loss ln K."""
    for prior in build.priors():
        codes = torch.randint(prior.layout.codebook_size, (16, prior.layout.length))
        loss, uniform = float(prior.loss(codes, torch.arange(16) % 3)), math.log(prior.layout.codebook_size)
        assert abs(loss - uniform) < 0.1 * uniform, f"loss {loss:.3f}, expected {uniform:.3f}"


def sampling_in_bfloat16_keeps_the_weights(build: Builder) -> None:
    """Sampling under autocast changes no weight, and gives codes."""
    layout = build.fitting(SMALL)
    prior = build(layout, CLASSES)
    before = {name: parameter.clone() for name, parameter in prior.named_parameters()}
    with torch.autocast("cpu", torch.bfloat16):
        codes = prior.sample(torch.arange(3), SamplingOptions(), image_seeds(0, range(3)))
    assert codes.shape == (3, layout.length) and codes.min() >= 0 and codes.max() < layout.codebook_size
    for name, parameter in prior.named_parameters():
        assert parameter.dtype == torch.float32 and torch.equal(parameter, before[name]), name


def gradients_reach_every_parameter(build: Builder) -> None:
    """One loss trains all weights."""
    for prior in build.priors():
        codes = torch.randint(prior.layout.codebook_size, (16, prior.layout.length))
        prior.loss(codes, torch.arange(16) % 3).backward()
        for name, parameter in prior.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@torch.no_grad()
def exact_probabilities_sum_to_one(build: Builder) -> None:
    """If `likelihood` is exact, exp(-nats) of all sequences sum to 1, for each class and without one."""
    prior = build(build.fitting(SMALLEST), CLASSES).eval()
    if prior.likelihood != "exact":
        return
    _randomize(prior)
    every = _every_sequence(prior.layout)
    for label in range(4):
        nats = prior.nats(every, torch.full((len(every),), label))
        assert nats.std() > 0.1
        assert abs(float(nats.double().neg().exp().sum()) - 1) < 1e-4


@torch.no_grad()
def bounds_leave_less_than_all_probability(build: Builder) -> None:
    """If `likelihood` is an upper bound, exp(-nats) of all sequences sum to less than 1."""
    prior = build(build.fitting(SMALLEST), CLASSES).eval()
    if prior.likelihood == "exact":
        return
    assert prior.likelihood.startswith("upper bound")
    vars(prior)["masks"] = 100  # an attribute of priors that estimate the bound from random masks
    _randomize(prior)
    every = _every_sequence(prior.layout)
    together = prior.nats(every.repeat(4, 1), torch.arange(4).repeat_interleave(len(every)))
    for nats in together.split(len(every)):
        assert nats.std() > 0.1
        assert 0.1 < float(nats.double().neg().exp().sum()) < 1


@torch.no_grad()
def nats_of_an_image_are_always_the_same(build: Builder) -> None:
    """The likelihood depends neither on chance nor on the batch."""
    for made in build.priors():
        prior, layout = made.eval(), made.layout
        codes, labels = torch.randint(layout.codebook_size, (5, layout.length)), torch.arange(5) % 3
        together = prior.nats(codes, labels)
        assert torch.equal(prior.nats(codes, labels), together)
        alone = [prior.nats(codes[[index]], labels[[index]]) for index in range(5)]
        torch.testing.assert_close(torch.cat(alone), together)


def samples_depend_on_their_own_seed_and_condition(build: Builder) -> None:
    """A sample is the same in any batch, and another with another seed."""
    for prior in build.priors():
        layout = prior.layout
        labels, seeds = torch.arange(7) % 3, image_seeds(11, range(7))
        options = _few_steps(prior, temperature=0.9, top_k=9, top_p=0.95, guidance=1.5)
        codes = prior.sample(labels, options, seeds)
        assert codes.shape == (7, layout.length) and codes.dtype == torch.int64
        assert codes.min() >= 0 and codes.max() < layout.codebook_size
        sizes = [1, 4, 2]
        parts = zip(labels.split(sizes), seeds.split(sizes), strict=True)
        assert torch.equal(torch.cat([prior.sample(label, options, seed) for label, seed in parts]), codes)
        assert not torch.equal(prior.sample(labels, options, image_seeds(12, range(7))), codes)
        assert len(codes.unique(dim=0)) == 7


def known_codes_stay(build: Builder) -> None:
    """Known codes are kept, and the others are sampled."""
    for prior in build.priors():
        layout = prior.layout
        labels, seeds = torch.arange(6) % 3, image_seeds(2, range(6))
        given = torch.randint(layout.codebook_size, (6, layout.length))
        mask, options = torch.rand(6, layout.length) < 0.5, _few_steps(prior)
        codes = prior.sample(labels, options, seeds, Known(given, mask))
        assert torch.equal(codes[mask], given[mask])
        assert (codes != given)[~mask].any()
        everything = Known(given, torch.ones_like(mask))
        assert torch.equal(prior.sample(labels, options, seeds, everything), given)
        nothing = Known(given, torch.zeros_like(mask))
        free = prior.sample(labels, options, seeds)
        assert torch.equal(prior.sample(labels, options, seeds, nothing), free)


def context_says_which_known_codes_count(build: Builder) -> None:
    """Known codes change the sampled codes before them, unless `context` is "earlier"."""
    layout = build.fitting(SMALL)
    prior = build(layout, CLASSES)
    _randomize(prior)
    labels, seeds = torch.arange(32) % 3, image_seeds(5, range(32))
    order = torch.arange(layout.length) if prior.sampling_order is None else prior.sampling_order
    later = order.argsort() >= layout.length // 2
    first, second = (
        prior.sample(
            labels,
            SamplingOptions(),
            seeds,
            Known(torch.full((32, layout.length), code), later.expand(32, -1)),
        )
        for code in (1, 4)
    )
    assert torch.equal(first[:, ~later], second[:, ~later]) == (prior.context == "earlier")


@torch.no_grad()
def sampled_codes_have_the_logits_of_one_pass(build: Builder) -> None:
    """Caches change nothing: at temperature 0, each code is the likeliest given those before it."""
    for made in build.priors():
        prior, layout = made.eval(), made.layout
        if not isinstance(prior, Exact) or any(map(_has_outputs_of_its_own, prior.modules())):
            return
        for parameter in prior.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        codes, labels = torch.randint(layout.codebook_size, (4, layout.length)), torch.arange(4) % 3
        mask = torch.rand(4, layout.length) < 0.3
        sampled = prior.sample(
            labels, SamplingOptions(temperature=0.0), image_seeds(0, range(4)), Known(codes, mask)
        )
        logits = prior.logits(sampled, labels)
        by_bits = logits.shape[-1] != layout.codebook_size
        likeliest = from_bits((logits > 0).long()) if by_bits else logits.argmax(dim=-1)
        assert torch.equal(sampled[~mask], likeliest[~mask]) and torch.equal(sampled[mask], codes[mask])


def sampling_uses_no_global_generator(build: Builder) -> None:
    """Samples depend on their seeds alone, and leave torch's generator as it is."""
    prior, seeds = build(build.fitting(SMALL), CLASSES), image_seeds(0, range(2))
    state = torch.get_rng_state()
    first = prior.sample(torch.tensor([0, 1]), SamplingOptions(), seeds)
    assert torch.equal(torch.get_rng_state(), state)
    torch.default_generator.manual_seed(99)
    assert torch.equal(prior.sample(torch.tensor([0, 1]), SamplingOptions(), seeds), first)


def weights_are_the_whole_state(build: Builder) -> None:
    """The state_dict has parameters only, and a copy with the same weights is the same prior."""
    layout = build.fitting(SMALL)
    prior, copy = build(layout, CLASSES).eval(), build(layout, CLASSES).eval()
    assert set(prior.state_dict()) == {name for name, _ in prior.named_parameters()}
    copy.load_state_dict(prior.state_dict())
    codes, labels = torch.randint(layout.codebook_size, (3, layout.length)), torch.arange(3)
    assert torch.equal(copy.nats(codes, labels), prior.nats(codes, labels))
