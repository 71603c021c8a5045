"""Laws of priors over codes; a new file in genstack/prior inherits all of them."""

import math
from dataclasses import replace

import pytest
import torch

import genstack.prior
from genstack.conditions import ClassLabels, Unconditional
from genstack.conditions.captions import Captions
from genstack.conditions.embedding import ConditionEmbedding
from genstack.discovery import discover
from genstack.inputs import ConditionInputs
from genstack.prior import CodePrior, Prior, SamplingOptions, image_seeds
from genstack.prior.exact import Exact
from genstack.testing import laws_in, priors
from genstack.testing.priors import LAYOUTS, SMALL, Builder

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


@pytest.fixture(params=PRIORS.values(), ids=PRIORS.keys())
def build(request):
    """Every prior in its folder, built small."""
    return Builder(request.param)


def values(words):
    """Captions as a prior reads them."""
    return CAPTIONS.encode(ConditionInputs(torch.zeros(len(words), dtype=torch.int64), tuple(words)))


def across(build, tiny, condition):
    """A prior that reads a condition across, by weights that matter."""
    backbones = [name for name, value in build.small.items() if value == tiny]
    if not backbones:
        pytest.skip("it has no backbone")
    builder = Builder(build.kind, **dict.fromkeys(backbones, replace(tiny, cross_attention=True)))
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


def test_priors_are_discovered():
    assert "Autoregressive" in PRIORS


#: Laws that sample several times, which takes some priors seconds.
SLOW = {priors.samples_depend_on_their_own_seed_and_condition}
LAWS = [pytest.param(law, marks=[pytest.mark.slow] * (law in SLOW)) for law in laws_in(priors)]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_prior_keeps_the_law(build, law):
    law(build)


@pytest.mark.slow
def test_prior_memorizes_a_few_images(build):
    """Of one layout; they rotate over the priors."""
    layouts = [layout for layout in LAYOUTS if not build.refusal(layout)]
    check_memory(build, layouts[list(PRIORS).index(build.kind.__name__) % len(layouts)])


@pytest.mark.nightly
def test_prior_memorizes_a_few_images_of_every_layout(build, layout):
    check_memory(build, layout)


def check_memory(build, layout):
    """The rate falls to 0: at a constant one the loss jumps, and single codes go wrong after some steps."""
    codes = torch.randint(layout.codebook_size, (4, layout.length))
    condition = ClassLabels(("a", "b", "c", "d"), dropout=0.0)
    batch = codes.repeat(4, 1), torch.arange(4).repeat(4)  # some priors read a part of each image, at random
    prior = train(build(layout, condition), lambda: batch, steps=140, rate=5e-3, final=0.0)
    assert prior.nats(codes, torch.arange(4)).mean() / layout.length < 0.1
    again = prior.sample(torch.arange(4), SamplingOptions(temperature=0.0), image_seeds(0, range(4)))
    assert torch.equal(again, codes)


@pytest.mark.nightly
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


@pytest.mark.slow
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


def test_sampling_reports_its_progress_and_ends_with_an_error_of_the_report(build, small):
    prior, steps = build(small, CLASSES).eval(), []
    prior.sample(torch.arange(3), SamplingOptions(), image_seeds(0, range(3)), report=steps.append)
    assert len(steps) > 1 and steps[0] == 0 and steps == sorted(steps) and steps[-1] <= 1
    with pytest.raises(InterruptedError):
        prior.sample(torch.arange(3), SamplingOptions(), image_seeds(0, range(3)), report=interrupt)


def interrupt(progress: float) -> None:
    raise InterruptedError


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


@pytest.mark.slow
def test_random_codes_cost_the_logarithm_of_the_codebook_size(build, small):
    labels = torch.zeros(32, dtype=torch.int64)

    def batch():
        return torch.randint(small.codebook_size, (32, small.length)), labels

    # Vectors of codes learn several times as fast as the rate, which has to fall for them to settle.
    prior = train(build(small, Unconditional()), batch, steps=40, final=0.0)
    fresh = torch.randint(small.codebook_size, (300, small.length))
    nats = prior.nats(fresh, torch.zeros(300, dtype=torch.int64)).mean() / small.length
    assert math.log(6) - 0.003 < nats < math.log(6) + 0.03
