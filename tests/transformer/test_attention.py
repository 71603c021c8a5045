"""Norms of heads against torch's own, and heads that share keys against heads that have them each."""

import pytest
import torch
from einops import repeat
from torch import nn
from torch.nn.functional import rms_norm

from genstack.conditions import Unconditional
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior import Autoregressive
from genstack.prior.autoregressive import TransformerState
from genstack.transformer import Backbone
from genstack.transformer.attention import HeadNorm

LAYOUT = CodeLayout((16, 16), 11, ((4, 4),))


def test_head_norm_and_gradients_agree_with_torch():
    """Also where a head is nothing, or next to it."""
    norm, heads = HeadNorm(3, 8, 1e-5), torch.randn(2, 5, 3, 8)
    nn.init.normal_(norm.gain)
    heads[0, 0], heads[0, 1] = 0, 1e-4
    ours, theirs = heads.clone().requires_grad_(), heads.clone().requires_grad_()
    made, expected = norm(ours), rms_norm(theirs, (8,), eps=1e-5) * norm.gain.view(3, 8)
    torch.testing.assert_close(made, expected)
    weights = torch.randn_like(made)
    asked = [
        torch.autograd.grad((each * weights).sum(), [inputs, norm.gain])
        for each, inputs in ((made, ours), (expected, theirs))
    ]
    torch.testing.assert_close(*asked, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("qk_norm", [False, True, "unit"])
@torch.no_grad()
def test_shared_keys_are_the_same_keys_for_each_head(qk_norm):
    """Equal to a transformer with a copy of keys and values for each head of queries."""
    plan = {"width": 24, "depth": 2, "heads": 6, "positions": "learned", "dropout": 0.0, "qk_norm": qk_norm}
    shared, own = (
        Autoregressive(LAYOUT, Unconditional(), Backbone(**plan, kv_heads=kv_heads)).eval()
        for kv_heads in (2, None)
    )
    for parameter in shared.parameters():
        nn.init.normal_(parameter, std=0.3)

    def copied(rows: torch.Tensor) -> torch.Tensor:
        """Queries as they are; each of the other heads, of 4 rows, three times."""
        others = repeat(rows[24:], "(head row) ... -> (head copy row) ...", copy=3, row=4)
        return torch.cat([rows[:24], others])

    state = {
        name: copied(value) if name.endswith(("attention.qkv.weight", "norm.gain")) else value
        for name, value in shared.state_dict().items()
    }
    own.load_state_dict(state)
    codes, condition = torch.randint(11, (3, 16)), torch.zeros(3, dtype=torch.int64)
    torch.testing.assert_close(shared.logits(codes, condition), own.logits(codes, condition))
    kept = []
    for prior in (shared, own):
        state = TransformerState(prior, condition)
        state.start(codes[:, :5])
        kept.append([cache.keys.shape[1] for cache in state.transformer.caches])
    assert kept == [[2, 2], [6, 6]]


@pytest.mark.parametrize("kv_heads", [0, 4, 12, -1])
def test_invalid_kv_heads_are_rejected(kv_heads):
    with pytest.raises(
        UserError, match=rf"kv_heads {kv_heads} does not divide 6 heads; use one of 1, 2, 3, 6"
    ):
        Backbone(24, 2, 6, kv_heads=kv_heads)
