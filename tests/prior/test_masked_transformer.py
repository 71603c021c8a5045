"""The network that predicts masked codes, and its bound, against distributions that are known exactly."""

from itertools import permutations, product

import pytest
import torch
from torch import nn

from genstack.conditions import Unconditional
from genstack.layout import CodeLayout
from genstack.prior.logits import uniforms
from genstack.prior.masked_transformer import MaskedTransformer, hash_codes, lowest_k, stratified_uniforms
from genstack.prior.symbols import Categorical, Softmax
from genstack.transformer.encoded_condition import EncodedCondition
from genstack.transformer.head import ScaledEmbedding

LAYOUT = CodeLayout((16, 16), 3, ((2, 2),))
EVERY = torch.tensor(list(product(range(3), repeat=4)))
NOTHING = torch.zeros(81, dtype=torch.int64)


class Oracle(nn.Module):
    """A network that knows the distribution of the codes: the exact conditionals of masked ones.

    Args:
        chances: the probability of each row of EVERY.
    """

    def __init__(self, chances):
        super().__init__()
        self.layout, self.chances, self.distribution = LAYOUT, chances, Categorical()

    def forward(self, codes, masked, selected, encoded):
        fits = (EVERY.eq(codes[:, None]) | masked[:, None]).all(-1).double() * self.chances
        of_each = torch.stack([(fits[:, :, None] * EVERY.eq(code)).sum(1) for code in range(3)], -1)
        return (of_each / fits.sum(1)[:, None, None]).log().float()[selected]

    def encode_condition(self, condition):
        return EncodedCondition(torch.zeros(81, 1, 1), torch.zeros(81, 1), ())

    masked_nats, nats_bound = MaskedTransformer.masked_nats, MaskedTransformer.nats_bound


@pytest.fixture
def chances():
    """Codes that depend on each other."""
    return (torch.randn(81, dtype=torch.float64) * 1.5).softmax(0)


@pytest.fixture
def filler(tiny):
    filler = MaskedTransformer(LAYOUT, Unconditional(), tiny, Softmax()).eval()
    for parameter in filler.parameters():
        nn.init.normal_(parameter, std=0.4)
    assert isinstance(filler.codes, ScaledEmbedding)
    filler.codes.weight.data /= filler.codes.scale
    return filler


def by_orders(filler):
    """Of all codes: the probability of drawing them one by one in a random order; and the bound."""
    likelihoods = []
    for order in permutations(range(4)):
        nats, masked = torch.zeros(81, dtype=torch.float64), torch.ones(81, 4, dtype=torch.bool)
        for place in order:
            selected = torch.zeros_like(masked)
            selected[:, place] = True
            logits = (
                filler(EVERY, masked, selected, filler.encode_condition(NOTHING)).double().log_softmax(-1)
            )
            nats -= logits.gather(1, EVERY[:, [place]])[:, 0]
            masked = masked & ~selected
        likelihoods.append(-nats)
    likelihoods = torch.stack(likelihoods)
    return likelihoods.exp().mean(0), -likelihoods.mean(0)


def test_bound_of_an_ideal_network_is_exact(chances):
    """With the right conditionals every order gives the same product, and nothing is lost."""
    bound = Oracle(chances).nats_bound(EVERY, NOTHING, masks=400)
    torch.testing.assert_close(bound, -chances.log().float(), atol=0.4, rtol=0)
    few = Oracle(chances).nats_bound(EVERY, NOTHING, masks=16)
    assert float(few @ chances.float()) == pytest.approx(float(-chances.log() @ chances), abs=0.2)


@pytest.mark.slow
@torch.no_grad()
def test_bound_agrees_with_random_orders_and_exceeds_their_likelihood(filler):
    drawn, exact = by_orders(filler)
    assert float(drawn.sum()) == pytest.approx(1, abs=1e-4)
    assert (exact + drawn.log() > -1e-6).all(), "Jensen"
    bound = filler.nats_bound(EVERY, NOTHING, masks=300)
    torch.testing.assert_close(bound.double(), exact, atol=0.3, rtol=0)
    assert abs(float((bound - exact).mean())) < 0.03


@pytest.mark.slow
@torch.no_grad()
def test_bound_agrees_with_continuous_time_diffusion(filler):
    """MDLM's integral by its definition, over a grid of times: each code masked by itself, weight 1 / t."""
    times = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    bound = torch.zeros(81, dtype=torch.float64)
    for pattern in torch.tensor(list(product([False, True], repeat=4)))[1:]:
        count = int(pattern.sum())
        weight = (times**count * (1 - times) ** (4 - count) / times).mean()
        bound += (
            weight
            * count
            * filler.masked_nats(EVERY, pattern.expand(81, 4), filler.encode_condition(NOTHING))
        )
    torch.testing.assert_close(bound, by_orders(filler)[1], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_masked_codes_have_no_effect(filler, layout, tiny):
    filler = MaskedTransformer(layout, Unconditional(), tiny, Softmax()).eval()
    codes, none = (
        torch.randint(11, (3, layout.length)),
        filler.encode_condition(torch.zeros(3, dtype=torch.int64)),
    )
    masked = torch.rand(codes.shape) < 0.5
    logits = filler(codes, masked, masked, none)
    others = torch.where(masked, torch.randint(11, codes.shape), codes)
    assert torch.equal(filler(others, masked, masked, none), logits)
    assert logits.shape == (int(masked.sum()), 11)
    everything = torch.ones_like(masked)
    whole = filler(codes, masked, everything, none).unflatten(0, codes.shape)
    torch.testing.assert_close(whole[masked], logits)


def test_lowest_k_marks_k_scores():
    scores = torch.tensor([[0.3, 0.1, 0.2], [5.0, 5.0, 5.0]])
    assert lowest_k(scores, torch.tensor([2, 1])).tolist() == [[False, True, True], [True, False, False]]
    assert not lowest_k(scores, torch.tensor([0, 0])).any()


def test_stratified_uniforms_are_spread_evenly():
    for batch in (1, 2, 7, 64):
        numbers = stratified_uniforms(batch, torch.device("cpu"))
        assert (numbers * batch).long().sort().values.tolist() == list(range(batch))
    firsts = torch.stack([stratified_uniforms(4, torch.device("cpu"))[0] for _ in range(2000)])
    assert float(firsts.mean()) == pytest.approx(0.5, abs=5 * (1 / 12 / 2000) ** 0.5)


def test_hashes_of_codes_differ():
    codes = torch.cat([EVERY, torch.zeros(1, 4, dtype=torch.int64)])
    seeds = hash_codes(codes)
    assert len(seeds.unique()) == 81 and seeds[0] == seeds[81]
    assert abs(float(uniforms(seeds[:81], 50).mean()) - 0.5) < 5 * (1 / 12 / 81 / 50) ** 0.5
