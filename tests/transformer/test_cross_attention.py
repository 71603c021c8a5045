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
from genstack.transformer.backbone import Backbone
from genstack.transformer.cross_attention import CrossAttention, KeyValue

LAYOUT = CodeLayout((16, 24), 6, ((2, 4),))
CAPTIONS = Captions(vocabulary=256, length=5, depth=1, heads=3, dropout=0.2)
VALUES = CAPTIONS.encode(ConditionInputs(torch.zeros(4, dtype=torch.int64), ("ab", "cdefg", "", "gfedc")))


@pytest.fixture
def cross_attention():
    """Queries, keys and values, and torch's own attention with the same weights."""
    backbone = Backbone(12, heads=3, positions="learned", qk_norm=False, bias=True)
    queries, key_values = CrossAttention(backbone), KeyValue(backbone)
    reference = nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([queries.q.weight, key_values.kv.weight]))
        reference.in_proj_bias.copy_(torch.cat([queries.q.bias, key_values.kv.bias]))
        reference.out_proj.load_state_dict(queries.out.state_dict())
    return queries, key_values, reference


@pytest.mark.parametrize("rows", [None, [[0, 0, 1, 0, 0], [1, 1, 0, 1, 1]]], ids=["all", "some hidden"])
def test_attention_agrees_with_torch(cross_attention, rows):
    queries, key_values, reference = cross_attention
    tokens, condition = torch.randn(2, 7, 12), torch.randn(2, 5, 12)
    hidden = None if rows is None else torch.tensor(rows, dtype=torch.bool)
    read = key_values.norm(condition)
    expected, _ = reference(tokens, read, read, key_padding_mask=hidden)
    torch.testing.assert_close(queries(tokens, key_values(condition, hidden)), expected)


def test_full_padding_gives_zero(cross_attention):
    queries, key_values, _ = cross_attention
    tokens, condition = torch.randn(2, 7, 12), torch.randn(2, 5, 12, requires_grad=True)
    hidden = torch.tensor([[True] * 5, [False] * 5])
    read = queries(tokens, key_values(condition, hidden))
    assert torch.equal(read[0], queries.out.bias.expand(7, 12))
    torch.testing.assert_close(read[1:], queries(tokens[1:], key_values(condition[1:], None)))
    read.square().sum().backward()
    assert not condition.grad[0].any() and condition.grad[1].any(dim=1).all()
    assert all(each.grad.isfinite().all() for each in (queries.q.weight, key_values.kv.weight))


def test_cross_attention_has_one_prefix_token(tiny):
    crossed, plain = (
        Autoregressive(LAYOUT, CAPTIONS, plan) for plan in (replace(tiny, cross_attention=True), tiny)
    )
    assert len(crossed.get_buffer("positions")) == LAYOUT.length
    assert len(plain.get_buffer("positions")) == LAYOUT.length + 4


@pytest.mark.parametrize("kind", [Autoregressive, Masked])
def test_condition_keys_are_computed_once(kind, tiny, monkeypatch):
    prior = kind(LAYOUT, CAPTIONS, replace(tiny, cross_attention=True))
    made, forward = [], KeyValue.forward
    monkeypatch.setattr(KeyValue, "forward", lambda *given: made.append(1) or forward(*given))
    prior.sample(VALUES, SamplingOptions(guidance=1.5), image_seeds(0, range(4)))
    assert len(made) == tiny.depth


def test_adaln_works_with_checkpointing(tiny):
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
