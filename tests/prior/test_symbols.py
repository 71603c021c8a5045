"""Codes read and predicted as bits or in parts, by every prior with a choice of symbols."""

import inspect
import math
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch

import genstack.prior
from genstack.conditions import ClassLabels
from genstack.discovery import discover
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior import Autoregressive, CodePrior, SamplingOptions, image_seeds
from genstack.prior.factorized import Factorized, PartEmbedding, halves, join_parts, split_parts
from genstack.prior.masked import Masked
from genstack.prior.masked_bits import MaskedBits
from genstack.prior.pixelcnn import GatedPixelCNN
from genstack.prior.pixelsnail import PixelSNAIL
from genstack.prior.symbols import Bits, BitTokens, IndependentBits, Softmax
from genstack.testing import laws_in, priors
from genstack.transformer.head import BitEmbedding, ScaledEmbedding, from_bits, to_bits

#: Priors that choose their symbols, and settings that change how these are read.
PRIORS: dict[str, tuple[type[CodePrior], dict[str, Any]]] = {
    name: (kind, {})
    for name, kind in discover(genstack.prior, CodePrior).items()
    if "symbols" in inspect.signature(kind).parameters
}
PRIORS["JointMasked"] = (Masked, {"joint": True})
SYMBOLS = {
    "BitTokens": BitTokens(),
    "Bits": Bits(),
    "MaskedBits": MaskedBits(width=12, depth=1, steps=2),
    "Factorized": Factorized(layers=1),
}
CLASSES = ClassLabels(("a", "b", "c"), dropout=0.2)
#: Codes of 4 values on one grid, on two, and at two depths: every prior takes one of them.
LAYOUTS = (
    CodeLayout((16, 16), 4, ((1, 3),)),
    CodeLayout((16, 16), 4, ((1, 2), (1, 2))),
    CodeLayout((16, 16), 4, ((1, 2),), depth=2),
)


@pytest.fixture(params=product(PRIORS, SYMBOLS), ids="-".join)
def build(request):
    """Every prior with every kind of symbols, built small."""
    name, symbols = request.param
    kind, settings = PRIORS[name]
    return priors.Builder(kind, symbols=SYMBOLS[symbols], **settings)


@pytest.fixture
def prior(build):
    """Every prior with every kind of symbols, over codes of 4 values."""
    return build(build.fitting(LAYOUTS), CLASSES)


#: Laws that take a tenth of a second and more for each prior.
QUICK = {priors.gradients_reach_every_parameter, priors.loss_starts_at_the_uniform_distribution}
#: A bound of bits in one fixed order is that order's own distribution: see `test_probabilities_sum_to_one`.
LAWS = [law for law in laws_in(priors) if law != priors.bounds_leave_less_than_all_probability]


@pytest.mark.parametrize(
    "law",
    [pytest.param(law, marks=[pytest.mark.slow] * (law not in QUICK)) for law in LAWS],
    ids=lambda law: law.__name__,
)
def test_prior_keeps_the_law(build, law, monkeypatch):
    """The laws of all priors, over codes of 2^n values."""
    layout = build.fitting(LAYOUTS)
    for name, codebook_size in (("LAYOUTS", 16), ("SMALL", 8), ("SMALLEST", 4)):
        monkeypatch.setattr(priors, name, (replace(layout, codebook_size=codebook_size),))
    law(build)


def test_priors_with_a_backbone_choose_their_symbols():
    assert {
        "Autoregressive",
        "Masked",
        "NextScale",
        "RandomOrder",
        "Diffusion",
        "ResidualTransformer",
    } <= set(PRIORS)


def test_bits_are_the_inverse_of_codes():
    codes = torch.tensor([0, 1, 5, 2**40 + 3, 2**62 - 1])
    assert torch.equal(from_bits(to_bits(codes, 62)), codes)
    assert to_bits(torch.tensor(6), 4).tolist() == [0, 1, 1, 0]


def test_the_vector_of_a_code_is_the_signed_sum_of_the_vectors_of_its_bits():
    table = BitEmbedding(3, 5, tables=2)
    vectors = (table.weight * table.scale).detach()
    torch.testing.assert_close(table(torch.tensor([5])).detach()[0], vectors[0] - vectors[1] + vectors[2])
    torch.testing.assert_close(table(torch.tensor([8 + 1])).detach()[0], vectors[3] - vectors[4] - vectors[5])


def test_parts_are_the_inverse_of_codes():
    sizes, codes = (6, 5, 4), torch.arange(120)
    parts = split_parts(codes, sizes)
    assert torch.equal(join_parts(parts, sizes), codes) and parts[7].tolist() == [1, 1, 0]
    assert (halves(2**18), halves(1000), halves(6)) == ((512, 512), (25, 40), (2, 3))


def test_the_vector_of_a_code_is_the_sum_of_the_vectors_of_its_parts():
    table = PartEmbedding((3, 2), 5, tables=2)
    vectors = (table.weight * table.scale).detach()
    torch.testing.assert_close(
        table(torch.tensor([[5], [6 + 1]])).detach()[:, 0],
        torch.stack([vectors[2] + vectors[3 + 1], vectors[5 + 1] + vectors[5 + 3]]),
    )


@pytest.mark.parametrize(
    ("parts", "codebook_size", "message"),
    [
        ((4, 8), 64, r"parts \[4, 8\] have 32 combinations, but the codebook has 64"),
        (None, 7, "has no two parts"),
        (None, 2**61 - 1, "has no two parts of at most 16777216 values"),
        ((2, 2**25), 2**26, "the limit is 16777216; use a prior with symbols Bits"),
    ],
)
def test_parts_that_do_not_fit_the_codebook_are_refused(tiny, parts, codebook_size, message):
    layout = CodeLayout((16, 16), codebook_size, ((2, 2),))
    with pytest.raises(UserError, match=message):
        Autoregressive(layout, CLASSES, tiny, symbols=Factorized(parts))


def test_a_token_for_all_symbols_of_a_position_is_shorter_and_needs_several(tiny):
    layout = CodeLayout((16, 16), 4, ((2, 3),), depth=2)
    joint, single = (Masked(layout, CLASSES, tiny, joint=joint) for joint in (True, False))
    assert [prior.network.transformer.layout.length for prior in (joint, single)] == [6, 12]
    with pytest.raises(UserError, match="joint needs a compressor with several symbols per position"):
        Masked(replace(layout, depth=1), CLASSES, tiny, joint=True)


def test_independent_bits_are_a_softmax_over_all_their_patterns():
    logits = torch.randn(7, 4, dtype=torch.float64)
    patterns = to_bits(torch.arange(16), 4).double()
    every = (logits @ patterns.T).log_softmax(dim=1)
    nats = torch.stack([IndependentBits(4).nats(logits, torch.full((7,), code)) for code in range(16)], dim=1)
    torch.testing.assert_close(nats, -every)


def test_sampled_bits_are_as_frequent_as_their_probabilities():
    logits = torch.tensor([[-1.0, 0.0, 2.0]]).expand(20_000, 3)
    uniforms = torch.rand(20_000, 3)
    codes = IndependentBits(3).sample(logits, lambda each: each, SamplingOptions(), uniforms)
    torch.testing.assert_close(to_bits(codes, 3).float().mean(0), logits[0].sigmoid(), atol=0.01, rtol=0)
    for options in (SamplingOptions(temperature=0.0), SamplingOptions(top_k=1), SamplingOptions(top_p=0.4)):
        likeliest = IndependentBits(3).sample(logits[:1], lambda each: each, options, uniforms[:1])
        assert to_bits(likeliest, 3)[0, [0, 2]].tolist() == [0, 1]


def mean_of_copies(logits: torch.Tensor) -> torch.Tensor:
    """A guidance of two copies of the rows."""
    conditional, null = logits.chunk(2)
    return (conditional + null) / 2


def randomized(symbols, codebook_size, tiny):
    """A distribution whose outputs are features, with weights that matter."""
    made = symbols.distribution(codebook_size, tiny).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


@pytest.mark.parametrize("options", [SamplingOptions(temperature=0.0), SamplingOptions(top_k=1)], ids=str)
@torch.no_grad()
def test_masked_bits_are_the_likeliest_in_every_pass(options, tiny):
    """In a loop: each pass guides the logits of bits, and keeps the likelier values of its own bits."""
    made = randomized(MaskedBits(width=12, depth=1, steps=2), 2**5, tiny)
    outputs, uniforms = torch.randn(2 * 9, tiny.width), torch.rand(9, 10)
    codes = made.sample(outputs, mean_of_copies, options, uniforms)
    order = uniforms[:, 5:].argsort(dim=1)
    bits, known = torch.zeros(9, 5, dtype=torch.int64), torch.zeros(9, 5, dtype=torch.bool)
    for places in (order[:, :3], order[:, 3:]):
        logits = mean_of_copies(made(outputs, bits.repeat(2, 1), ~known.repeat(2, 1)))
        bits.scatter_(1, places, (logits > 0).long().gather(1, places))
        known.scatter_(1, places, True)
    assert torch.equal(codes, from_bits(bits)) and len(codes.unique()) > 1


@torch.no_grad()
def test_parts_are_among_the_likeliest(tiny):
    """Top-k and guidance act on the values of each part, given those before it."""
    made = randomized(Factorized((4, 8), layers=1), 32, tiny)
    outputs, uniforms = torch.randn(2 * 200, tiny.width), torch.rand(200, 2)
    for k in (1, 2):
        codes = made.sample(outputs, mean_of_copies, SamplingOptions(top_k=k), uniforms)
        parts = split_parts(codes, (4, 8))
        for place, logits in enumerate(made(outputs, parts[:, :1].repeat(2, 1))):
            ranks = mean_of_copies(logits).argsort(dim=1, descending=True).argsort(dim=1)
            assert set(ranks.gather(1, parts[:, place, None]).unique().tolist()) == set(range(k))


@pytest.mark.parametrize("codebook_size", [1, 6, 1000])
def test_a_codebook_that_is_no_power_of_two_is_refused_in_one_line(tiny, codebook_size):
    with pytest.raises(UserError, match=f"2\\^n values, got {codebook_size}; use symbols Softmax"):
        Autoregressive(CodeLayout((16, 16), codebook_size, ((2, 2),)), CLASSES, tiny, symbols=Bits())


@pytest.mark.slow
@torch.no_grad()
def test_probabilities_sum_to_one_and_bounds_to_less(prior):
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    for module in prior.modules():
        if isinstance(module, ScaledEmbedding):
            module.weight /= module.scale
    if hasattr(prior, "masks"):
        prior.masks = 50
    length = prior.layout.length
    every = torch.tensor(list(product(range(4), repeat=length)))
    nats = prior.eval().nats(every, torch.zeros(len(every), dtype=torch.int64))
    assert nats.std() > 0.05
    total = float(nats.double().neg().exp().sum())
    if prior.likelihood in {"exact", "upper bound (bits in a fixed order)"}:  # that order is a distribution
        assert total == pytest.approx(1, abs=1e-4)
    else:
        assert prior.likelihood.startswith("upper bound") and 0.1 < total < 1


@pytest.mark.nightly
def test_prior_memorizes_a_few_images(prior):
    codes = torch.randint(4, (3, prior.layout.length))
    optimizer = torch.optim.AdamW(prior.parameters(), 5e-3, betas=(0.9, 0.95), weight_decay=0.0)
    prior.train()
    for _ in range(250):
        optimizer.zero_grad()
        prior.loss(codes.repeat(8, 1), torch.arange(3).repeat(8)).backward()
        optimizer.step()
    assert prior.eval().nats(codes, torch.arange(3)).mean() / prior.layout.length < 0.1
    again = prior.sample(torch.arange(3), SamplingOptions(temperature=0.0), image_seeds(0, range(3)))
    assert torch.equal(again, codes)


@pytest.mark.slow
def test_masked_bits_and_parts_learn_what_independent_bits_cannot(tiny):
    """Both bits of a code are always alike: ln 2 nats, where independent bits need twice as many."""
    layout = CodeLayout((16, 16), 4, ((1, 1),))
    nats = {}
    for symbols in (Bits(), MaskedBits(width=16, depth=1, steps=2), Factorized(layers=1)):
        prior = Autoregressive(layout, CLASSES, tiny, symbols=symbols)
        optimizer = torch.optim.AdamW(prior.parameters(), 5e-3)
        for _ in range(200):
            optimizer.zero_grad()
            codes = 3 * torch.randint(2, (64, 1))
            prior.loss(codes, torch.zeros(64, dtype=torch.int64)).backward()
            optimizer.step()
        labels = torch.zeros(200, dtype=torch.int64)
        with torch.no_grad():
            nats[type(symbols)] = float(prior.eval().nats(3 * torch.randint(2, (200, 1)), labels).mean())
        drawn = prior.sample(labels, SamplingOptions(), image_seeds(0, range(200)))
        alike = float(((drawn == 0) | (drawn == 3)).float().mean())
        assert (alike > 0.95) == (not isinstance(symbols, Bits) or isinstance(symbols, MaskedBits))
    assert (
        max(nats[MaskedBits], nats[Factorized]) < math.log(2) + 0.05 and nats[Bits] > 2 * math.log(2) - 0.05
    )


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("symbols", [Softmax(), BitTokens()], ids=lambda each: type(each).__name__)
def test_a_table_for_too_many_codes_is_refused(name, symbols):
    kind, settings = PRIORS[name]
    build = priors.Builder(kind, symbols=symbols, **settings)
    layouts = [replace(layout, codebook_size=2**32) for layout in LAYOUTS]
    assert any("use a prior with symbols Bits" in build.refusal(layout) for layout in layouts)


@pytest.mark.parametrize("kind", [GatedPixelCNN, PixelSNAIL])
def test_convolutional_priors_have_a_table(kind):
    refusal = priors.Builder(kind).refusal(replace(priors.SMALL[0], codebook_size=2**32))
    assert "use a prior with symbols Bits (--config bits)" in refusal


@torch.no_grad()
def test_a_codebook_of_2_to_the_40_takes_the_memory_of_40_bits(tiny):
    layout = CodeLayout((16, 16), 2**40, ((2, 2),))
    small = CodeLayout((16, 16), 2**8, ((2, 2),))
    large, little = (Autoregressive(each, CLASSES, tiny, symbols=Bits()) for each in (layout, small))
    count = [sum(weight.numel() for weight in prior.parameters()) for prior in (large, little)]
    assert count[0] - count[1] == 32 * tiny.width
    assert count[1] < sum(
        weight.numel() for weight in Autoregressive(small, CLASSES, tiny, symbols=Softmax()).parameters()
    )
    codes = large.sample(torch.tensor([0, 1]), SamplingOptions(), image_seeds(0, range(2)))
    assert codes.min() >= 0 and 2**32 < codes.max() < 2**40
    assert large.nats(codes, torch.tensor([0, 1])).mean() == pytest.approx(160 * math.log(2), rel=0.1)
