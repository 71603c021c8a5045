"""Laws of priors over codes; a new file in genstack/prior inherits all of them."""

import inspect
import math
from dataclasses import replace
from itertools import product

import pytest
import torch

import genstack.prior
from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers.multiscale import MultiScale
from genstack.conditions import ClassLabels, Unconditional
from genstack.conditions.captions import Captions
from genstack.conditions.embedding import ConditionEmbedding
from genstack.discovery import discover
from genstack.errors import UserError
from genstack.inputs import ConditionInputs
from genstack.layout import CodeLayout
from genstack.prior import CodePrior, Known, Prior, SamplingOptions, image_seeds
from genstack.prior.exact import Exact
from genstack.transformer.head import ScaledEmbedding

PRIORS = discover(genstack.prior, CodePrior)
CLASSES = ClassLabels(("a", "b", "c"), dropout=0.2)
CAPTIONS = Captions(vocabulary=256, length=5, depth=1, heads=3, dropout=0.2)


class Filled(Captions):
    """Words below 100 only fill up; no word sees another before the prior."""

    def padding_mask(self, values):
        return values < 100

    def embedding(self, width):
        return WordEmbedding(width)


class WordEmbedding(ConditionEmbedding):
    def __init__(self, width):
        super().__init__()
        self.table = torch.nn.Embedding(257, width)

    def forward(self, values):
        return self.table(values)


FILLED = Filled(length=5, dropout=0.2)
WORDS = ("ab", "cdefg", "", "gfedc")
#: The same number of codes on one grid, on two, and at two depths: every prior takes one of them.
SMALL = [
    CodeLayout((16, 24), 6, ((2, 4),)),
    CodeLayout((16, 24), 6, ((1, 2), (2, 3))),
    CodeLayout((16, 24), 6, ((2, 2),), depth=2),
]
SMALLEST = [
    CodeLayout((16, 16), 3, ((2, 2),)),
    CodeLayout((16, 16), 3, ((1, 1), (1, 3))),
    CodeLayout((16, 16), 3, ((1, 2),), depth=2),
]


def train(prior: Prior, batch, steps: int, rate: float = 3e-3, final: float = 1.0) -> Prior:
    """Adam on whatever `batch()` gives; the rate goes straight to a share of itself, `final`."""
    optimizer = torch.optim.AdamW(prior.parameters(), rate, betas=(0.9, 0.95), weight_decay=0.0)
    prior.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - (1 - final) * step / steps)
        optimizer.zero_grad()
        prior.loss(*batch()).backward()
        optimizer.step()
    return prior.eval()


@torch.no_grad()
def randomize(prior: Prior) -> None:
    """Give all parameters values of deviation 0.4, as they are read."""
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    for module in prior.modules():
        if isinstance(module, ScaledEmbedding):
            module.weight /= module.scale


class Builder:
    """A kind of prior, built small and attached to a compressor that learned nothing."""

    def __init__(self, kind, backbone):
        sizes = {
            "backbone": backbone,
            "finer": backbone,
            "width": 24,
            "blocks": 2,
            "layers": 2,
            "heads": 3,
            "dropout": 0.0,
        }
        self.kind = kind
        self.small: dict = {
            name: size for name, size in sizes.items() if name in inspect.signature(kind).parameters
        }

        self.compressors = {}

    def __call__(self, layout, condition):
        prior = self.kind(layout, condition, **self.small)
        if layout not in self.compressors:
            quantizer = MultiScale(tuple(range(1, len(layout.grids) + 1)), layout.codebook_size, 5)
            network = Convolutional(8, 8, (1, 1, 1, 1), 1, (), False)
            self.compressors[layout] = Autoencoder(1, network, quantizer)
        prior.attach(self.compressors[layout])
        return prior

    def refusal(self, layout):
        """Why a layout is refused; empty where it is not."""
        try:
            self.kind(layout, CLASSES, **self.small)
        except UserError as error:
            return str(error)
        return ""

    def fitting(self, layouts):
        """The first of these that is not refused."""
        return next(layout for layout in layouts if not self.refusal(layout))


@pytest.fixture(params=PRIORS.values(), ids=PRIORS.keys())
def build(request, tiny):
    """Every prior in its folder, built small."""
    return Builder(request.param, tiny)


def values(words):
    """Captions as a prior reads them."""
    return CAPTIONS.encode(ConditionInputs(torch.zeros(len(words), dtype=torch.int64), tuple(words)))


def across(build, tiny, condition):
    """A prior that reads a condition across, by weights that matter."""
    if "backbone" not in build.small:
        pytest.skip("it has no backbone")
    builder = Builder(build.kind, replace(tiny, cross_attention=True))
    prior = builder(builder.fitting(SMALL), condition).eval()
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return prior


@pytest.fixture
def crossed(build, tiny):
    """Every prior with a backbone, which reads captions across."""
    return across(build, tiny, CAPTIONS)


@pytest.fixture
def filled(build, tiny):
    """Every prior with a backbone, which reads across tokens of which some only fill up."""
    return across(build, tiny, FILLED)


@pytest.fixture
def layout(build, layout):
    """Every layout that the prior does not refuse."""
    if refusal := build.refusal(layout):
        pytest.skip(refusal)
    return layout


@pytest.fixture
def small(build):
    return build.fitting(SMALL)


@pytest.fixture
def smallest(build):
    """A layout whose codes can all be tried."""
    return build.fitting(SMALLEST)


def test_priors_are_discovered():
    assert "Autoregressive" in PRIORS


@pytest.mark.parametrize("impossible", SMALL, ids=lambda layout: f"{layout.grids} depth {layout.depth}")
def test_unsupported_layouts_are_rejected_with_a_way_out(build, impossible):
    refusal = build.refusal(impossible)
    assert not refusal or ("Autoregressive" in refusal and len(refusal) < 300)


def test_arguments_are_kept_under_their_names(build, small):
    prior = build(small, CLASSES)
    assert prior.layout == small and prior.condition == CLASSES
    for name in inspect.signature(type(prior)).parameters:
        assert hasattr(prior, name), f"{type(prior).__name__} does not keep its argument {name}"


@torch.no_grad()
def test_the_loss_starts_at_the_uniform_distribution(build, layout):
    codes = torch.randint(layout.codebook_size, (16, layout.length))
    prior = build(layout, CLASSES)
    assert float(prior.loss(codes, torch.arange(16) % 3)) == pytest.approx(
        math.log(layout.codebook_size), rel=0.1
    )


def test_sampling_in_bfloat16_restores_the_weights(build, small):
    prior = build(small, CLASSES)
    before = {name: parameter.clone() for name, parameter in prior.named_parameters()}
    with torch.autocast("cpu", torch.bfloat16):
        codes = prior.sample(torch.arange(3), SamplingOptions(), image_seeds(0, range(3)))
    assert codes.shape == (3, small.length) and codes.min() >= 0 and codes.max() < small.codebook_size
    for name, parameter in prior.named_parameters():
        assert parameter.dtype == torch.float32 and torch.equal(parameter, before[name])


def test_gradients_reach_every_parameter(build, layout):
    prior = build(layout, CLASSES)
    prior.loss(torch.randint(layout.codebook_size, (16, layout.length)), torch.arange(16) % 3).backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@torch.no_grad()
def test_the_probabilities_of_all_codes_sum_to_one(build, smallest):
    prior = build(smallest, CLASSES).eval()
    if prior.likelihood != "exact":
        pytest.skip("its likelihood is a bound")
    randomize(prior)
    every = torch.tensor(list(product(range(3), repeat=4)))
    for label in range(4):
        nats = prior.nats(every, torch.full((81,), label))
        assert nats.std() > 0.1
        assert float(nats.double().neg().exp().sum()) == pytest.approx(1, abs=1e-4)


@torch.no_grad()
def test_probabilities_of_a_bound_sum_to_less_than_one(build, smallest):
    prior = build(smallest, CLASSES).eval()
    if prior.likelihood == "exact":
        pytest.skip("its likelihood is exact")
    assert prior.likelihood.startswith("upper bound")
    prior.masks = 100  # the bound itself, hardly an estimate any more
    randomize(prior)
    every = torch.tensor(list(product(range(3), repeat=4)))
    together = prior.nats(every.repeat(4, 1), torch.arange(4).repeat_interleave(81))
    for nats in together.split(81):
        assert nats.std() > 0.1
        assert 0.1 < float(nats.double().neg().exp().sum()) < 1


@torch.no_grad()
def test_nats_are_deterministic(build, layout):
    prior = build(layout, CLASSES).eval()
    codes, labels = torch.randint(layout.codebook_size, (5, layout.length)), torch.arange(5) % 3
    together = prior.nats(codes, labels)
    assert torch.equal(prior.nats(codes, labels), together)
    alone = [prior.nats(codes[[index]], labels[[index]]) for index in range(5)]
    torch.testing.assert_close(torch.cat(alone), together)


def test_samples_depend_only_on_their_seed_and_condition(build, layout):
    prior = build(layout, CLASSES)
    labels, seeds = torch.arange(7) % 3, image_seeds(11, range(7))
    options = SamplingOptions(temperature=0.9, top_k=9, top_p=0.95, guidance=1.5)
    codes = prior.sample(labels, options, seeds)
    assert codes.shape == (7, layout.length) and codes.dtype == torch.int64
    assert codes.min() >= 0 and codes.max() < layout.codebook_size
    sizes = [1, 4, 2]
    parts = zip(labels.split(sizes), seeds.split(sizes), strict=True)
    assert torch.equal(torch.cat([prior.sample(label, options, seed) for label, seed in parts]), codes)
    assert not torch.equal(prior.sample(labels, options, image_seeds(12, range(7))), codes)
    assert len(codes.unique(dim=0)) == 7


def test_known_codes_are_kept_and_others_sampled(build, layout):
    prior = build(layout, CLASSES)
    labels, seeds = torch.arange(6) % 3, image_seeds(2, range(6))
    given = torch.randint(layout.codebook_size, (6, layout.length))
    mask = torch.rand(6, layout.length) < 0.5
    codes = prior.sample(labels, SamplingOptions(), seeds, Known(given, mask))
    assert torch.equal(codes[mask], given[mask])
    assert (codes != given)[~mask].any()
    everything = Known(given, torch.ones_like(mask))
    assert torch.equal(prior.sample(labels, SamplingOptions(), seeds, everything), given)
    nothing = Known(given, torch.zeros_like(mask))
    free = prior.sample(labels, SamplingOptions(), seeds)
    assert torch.equal(prior.sample(labels, SamplingOptions(), seeds, nothing), free)


def test_context_states_which_known_codes_matter(build, small):
    """Known codes behind those that are drawn change them, or never do."""
    prior = build(small, CLASSES)
    randomize(prior)
    labels, seeds = torch.arange(32) % 3, image_seeds(5, range(32))
    later = torch.arange(small.length) >= small.length // 2
    first, second = (
        prior.sample(
            labels,
            SamplingOptions(),
            seeds,
            Known(torch.full((32, small.length), code), later.expand(32, -1)),
        )
        for code in (1, 4)
    )
    assert torch.equal(first[:, ~later], second[:, ~later]) == (prior.context == "earlier")


@torch.no_grad()
def test_sampling_agrees_with_one_pass(build, layout):
    """Whatever drawing caches: each code is the likeliest given those before it, beside known codes too."""
    prior = build(layout, CLASSES).eval()
    if not isinstance(prior, Exact):
        pytest.skip("not all of its logits come from one pass over codes")
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    codes, labels = torch.randint(layout.codebook_size, (4, layout.length)), torch.arange(4) % 3
    mask = torch.rand(4, layout.length) < 0.3
    drawn = prior.sample(
        labels, SamplingOptions(temperature=0.0), image_seeds(0, range(4)), Known(codes, mask)
    )
    likeliest = prior.logits(drawn, labels).argmax(dim=-1)
    assert torch.equal(drawn[~mask], likeliest[~mask]) and torch.equal(drawn[mask], codes[mask])


def test_sampling_is_independent_of_the_global_generator(build, small):
    prior, seeds = build(small, CLASSES), image_seeds(0, range(2))
    state = torch.get_rng_state()
    first = prior.sample(torch.tensor([0, 1]), SamplingOptions(), seeds)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(prior.sample(torch.tensor([0, 1]), SamplingOptions(), seeds), first)


@pytest.mark.slow
def test_prior_memorizes_a_few_images(build, layout):
    """The rate falls to 0: at a constant one the loss jumps, and single codes go wrong after some steps."""
    codes = torch.randint(layout.codebook_size, (4, layout.length))
    condition = ClassLabels(("a", "b", "c", "d"), dropout=0.0)
    batch = codes.repeat(4, 1), torch.arange(4).repeat(4)  # some priors read a part of each image, at random
    prior = train(build(layout, condition), lambda: batch, steps=140, rate=5e-3, final=0.0)
    assert prior.nats(codes, torch.arange(4)).mean() / layout.length < 0.1
    again = prior.sample(torch.arange(4), SamplingOptions(temperature=0.0), image_seeds(0, range(4)))
    assert torch.equal(again, codes)


@pytest.mark.slow
def test_samples_follow_the_condition(build, small):
    """Class 0 has codes below 3, class 1 the others."""
    labels = torch.arange(32) % 2

    def batch():
        return torch.randint(3, (32, small.length)) + 3 * labels[:, None], labels

    prior = train(build(small, ClassLabels(("low", "high"), dropout=0.3)), batch, steps=150, final=0.0)
    codes, _ = batch()
    assert prior.nats(codes, 1 - labels).mean() > prior.nats(codes, labels).mean() + 2
    for guidance in (1.0, 3.0):
        drawn = prior.sample(labels, SamplingOptions(guidance=guidance), image_seeds(0, range(32)))
        assert ((drawn >= 3) == (labels[:, None] == 1)).float().mean() > 0.95
    free = prior.sample(labels, SamplingOptions(guidance=0.0), image_seeds(0, range(32)))
    assert 0.1 < (free >= 3).float().mean() < 0.9


def test_the_condition_is_read_early(build, small):
    """Its way to the logits is no narrower than that of the codes: 40 small steps show the class."""
    labels = torch.arange(32) % 2

    def batch():
        return torch.randint(3, (32, small.length)) + 3 * labels[:, None], labels

    torch.manual_seed(0)
    prior = train(build(small, ClassLabels(("low", "high"), dropout=0.3)), batch, steps=40, rate=1e-3)
    codes, _ = batch()
    with torch.no_grad():
        assert prior.nats(codes, 1 - labels).mean() > prior.nats(codes, labels).mean() + 1.2


@torch.no_grad()
def test_cross_attention_agrees_with_one_pass(crossed):
    codes = torch.randint(6, (1, crossed.layout.length))
    forth, back = (crossed.nats(codes, values([word])) for word in ("cdefg", "gfedc"))
    assert (forth - back).abs() > 1e-3
    if isinstance(crossed, Exact):
        drawn = crossed.sample(values(WORDS), SamplingOptions(temperature=0.0), image_seeds(0, range(4)))
        assert torch.equal(drawn, crossed.logits(drawn, values(WORDS)).argmax(dim=-1))


def test_cross_attention_reads_the_own_caption(crossed):
    options, seeds = SamplingOptions(guidance=2.0), image_seeds(3, range(4))
    together = crossed.sample(values(WORDS), options, seeds)
    alone = [crossed.sample(values([word]), options, seeds[[row]]) for row, word in enumerate(WORDS)]
    assert torch.equal(torch.cat(alone), together)
    assert not torch.equal(crossed.sample(values(("xyz",) * 4), options, seeds), together)


def test_gradients_reach_cross_attention(crossed):
    crossed.loss(torch.randint(6, (16, crossed.layout.length)), values(WORDS * 4)).backward()
    for name, parameter in crossed.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_cross_attention_ignores_padding(filled):
    """Not even where that is all there is; in guidance, the null condition is such a one here."""
    told = torch.tensor([[3, 100, 7, 120, 9], [101, 102, 103, 104, 105], [1, 2, 3, 4, 5], [0, 0, 0, 0, 200]])
    other = torch.where(told < 100, torch.randint(100, told.shape), told)
    codes, options = torch.randint(6, (4, filled.layout.length)), SamplingOptions(guidance=2.0)
    with torch.no_grad():
        nats = filled.nats(codes, told)
        assert nats.isfinite().all() and torch.equal(filled.nats(codes, other), nats)
        changed = filled.nats(codes, torch.where(told < 100, told, told + 20)) != nats
        assert changed.tolist() == [True, True, False, True]
    if isinstance(filled, Exact):
        cold = filled.sample(told, SamplingOptions(temperature=0.0), image_seeds(0, range(4)))
        assert torch.equal(cold, filled.logits(cold, told).argmax(dim=-1))
    drawn = filled.sample(told, options, image_seeds(0, range(4)))
    assert torch.equal(filled.sample(other, options, image_seeds(0, range(4))), drawn)
    filled.train().loss(codes, told).backward()
    assert all(parameter.grad.isfinite().all() for parameter in filled.parameters())


def test_random_codes_cost_the_logarithm_of_the_codebook_size(build, small):
    labels = torch.zeros(32, dtype=torch.int64)

    def batch():
        return torch.randint(small.codebook_size, (32, small.length)), labels

    # Vectors of codes learn several times as fast as the rate, which has to fall for them to settle.
    prior = train(build(small, Unconditional()), batch, steps=40, final=0.0)
    fresh = torch.randint(small.codebook_size, (300, small.length))
    nats = prior.nats(fresh, torch.zeros(300, dtype=torch.int64)).mean() / small.length
    assert math.log(6) - 0.003 < nats < math.log(6) + 0.03


def test_weights_are_the_complete_state(build, small):
    """What is derived from the layout is in no checkpoint; a copy with the same weights is the same prior."""
    prior, copy = build(small, CLASSES).eval(), build(small, CLASSES).eval()
    assert set(prior.state_dict()) == {name for name, _ in prior.named_parameters()}
    copy.load_state_dict(prior.state_dict())
    codes, labels = torch.randint(6, (3, small.length)), torch.arange(3)
    assert torch.equal(copy.nats(codes, labels), prior.nats(codes, labels))
