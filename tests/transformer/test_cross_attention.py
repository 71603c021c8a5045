"""Cross-attention to a condition: what it computes, what it spares, what it goes with."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from genstack.conditions.captions import Captions
from genstack.inputs import ConditionInputs
from genstack.layout import CodeLayout
from genstack.prior import SamplingOptions, image_seeds
from genstack.prior.autoregressive import Autoregressive
from genstack.prior.masked import Masked
from genstack.transformer.cross_attention import CrossAttention, KeyValue

LAYOUT = CodeLayout((16, 24), 6, ((2, 4),))
CAPTIONS = Captions(vocabulary=256, length=5, depth=1, heads=3, dropout=0.2)
VALUES = CAPTIONS.encode(ConditionInputs(torch.zeros(4, dtype=torch.int64), ("ab", "cdefg", "", "gfedc")))


@pytest.fixture
def cross_attention():
    """Queries, what answers them, and torch's own attention of the same weights."""
    asking, answering = (kind(12, 3, nn.Identity(), bias=True) for kind in (CrossAttention, KeyValue))
    reference = nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([asking.q.weight, answering.kv.weight]))
        reference.in_proj_bias.copy_(torch.cat([asking.q.bias, answering.kv.bias]))
        reference.out_proj.load_state_dict(asking.out.state_dict())
    return asking, answering, reference


@pytest.mark.parametrize("rows", [None, [[0, 0, 1, 0, 0], [1, 1, 0, 1, 1]]], ids=["all", "some hidden"])
def test_attention_is_that_of_torch(cross_attention, rows):
    asking, answering, reference = cross_attention
    tokens, condition = torch.randn(2, 7, 12), torch.randn(2, 5, 12)
    hidden = None if rows is None else torch.tensor(rows, dtype=torch.bool)
    read = answering.norm(condition)
    expected, _ = reference(tokens, read, read, key_padding_mask=hidden)
    torch.testing.assert_close(asking(tokens, answering(condition, hidden)), expected)


def test_where_all_is_hidden_nothing_is_read(cross_attention):
    asking, answering, _ = cross_attention
    tokens, condition = torch.randn(2, 7, 12), torch.randn(2, 5, 12, requires_grad=True)
    hidden = torch.tensor([[True] * 5, [False] * 5])
    read = asking(tokens, answering(condition, hidden))
    assert torch.equal(read[0], asking.out.bias.expand(7, 12))
    torch.testing.assert_close(read[1:], asking(tokens[1:], answering(condition[1:], None)))
    read.square().sum().backward()
    assert not condition.grad[0].any() and condition.grad[1].any(dim=1).all()
    assert all(each.grad.isfinite().all() for each in (asking.q.weight, answering.kv.weight))


def test_one_token_stands_before_the_codes_instead_of_all(tiny):
    crossed, plain = (
        Autoregressive(LAYOUT, CAPTIONS, plan) for plan in (replace(tiny, cross_attention=True), tiny)
    )
    assert len(crossed.get_buffer("positions")) == LAYOUT.length
    assert len(plain.get_buffer("positions")) == LAYOUT.length + 4


@pytest.mark.parametrize("kind", [Autoregressive, Masked])
def test_keys_of_the_condition_are_made_once_for_all_steps(kind, tiny, monkeypatch):
    prior = kind(LAYOUT, CAPTIONS, replace(tiny, cross_attention=True))
    made, forward = [], KeyValue.forward
    monkeypatch.setattr(KeyValue, "forward", lambda *given: made.append(1) or forward(*given))
    prior.sample(VALUES, SamplingOptions(guidance=1.5), image_seeds(0, range(4)))
    assert len(made) == tiny.depth


def test_adaptive_norms_and_forgotten_activations_fit(tiny):
    plan = replace(tiny, cross_attention=True, adaln="own")
    plain, thrifty = (
        Autoregressive(LAYOUT, CAPTIONS, replace(plan, checkpoint=each)) for each in (False, True)
    )
    thrifty.load_state_dict(plain.state_dict())
    codes = torch.randint(6, (4, 8))
    for prior in (plain, thrifty):
        torch.manual_seed(0)
        prior.loss(codes, VALUES).backward()
    for (name, first), second in zip(plain.named_parameters(), thrifty.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, msg=name)
