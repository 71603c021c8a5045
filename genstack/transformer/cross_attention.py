"""Cross-attention to a condition (Vaswani et al. 2017, arXiv:1706.03762, 3.2.3; Parti, arXiv:2206.10789).

A long condition before the codes makes every layer longer by its tokens. Read across, it adds a query to each
code, and keys and values that are made once for a whole sample.
"""

from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import dropout

from genstack.transformer.masks import attended


class KeyValuePair(NamedTuple):
    """The keys and values that one layer reads of a condition.

    Args:
        keys: of each token.
        values: of each token.
        hidden: True for tokens that only fill up, and are not read; None where all are.
    """

    keys: Float[Tensor, "b h m d"]
    values: Float[Tensor, "b h m d"]
    hidden: Bool[Tensor, "b m"] | None


class KeyValue(nn.Module):
    """Tokens of a condition to keys and values, for one layer.

    It stands beside the layer, not in it, since it is called once for a sample, and the layer for every code.

    Args:
        width: channels of a token, a multiple of `heads`.
        heads: attention heads.
        norm: of the keys of each head.
        bias: give the linear layer a bias.
    """

    def __init__(self, width: int, heads: int, norm: nn.Module, bias: bool):
        super().__init__()
        self.heads, self.key_norm = heads, norm
        self.norm = nn.RMSNorm(width, eps=1e-5)  # an embedding may be small, and would be read late
        self.answer = nn.Linear(width, 2 * width, bias=bias)

    def forward(
        self, condition: Float[Tensor, "b m width"], hidden: Bool[Tensor, "b m"] | None
    ) -> KeyValuePair:
        answers = self.answer(self.norm(condition))
        keys, values = rearrange(answers, "b m (two h d) -> two b m h d", two=2, h=self.heads)
        keys = self.key_norm(keys).type_as(values)
        # Copies, since FSDP watches what a module returns, which it cannot in views.
        keys, values = (
            each.transpose(1, 2).clone(memory_format=torch.contiguous_format) for each in (keys, values)
        )
        return KeyValuePair(keys, values, hidden)


class CrossAttention(nn.Module):
    """Attention whose queries are tokens, and whose keys and values are those of a condition.

    Args:
        width: channels of a token, a multiple of `heads`.
        heads: attention heads.
        norm: of the queries of each head.
        bias: give the linear layers biases.
    """

    def __init__(self, width: int, heads: int, norm: nn.Module, bias: bool):
        super().__init__()
        self.heads, self.query_norm = heads, norm
        self.ask = nn.Linear(width, width, bias=bias)
        self.write = nn.Linear(width, width, bias=bias)

    def forward(self, tokens: Float[Tensor, "b n width"], pair: KeyValuePair) -> Float[Tensor, "b n width"]:
        queries = self.query_norm(rearrange(self.ask(tokens), "b n (h d) -> b n h d", h=self.heads))
        queries = rearrange(queries, "b n h d -> b h n d").type_as(pair.values)
        return self.write(rearrange(asked(queries, pair), "b h n d -> b n (h d)"))


def asked(queries: Float[Tensor, "b h n d"], pair: KeyValuePair) -> Float[Tensor, "b h n d"]:
    """What queries read of a condition: nothing, which is 0, where all of its tokens are hidden."""
    if pair.hidden is None:
        return attended(queries, pair.keys, pair.values)
    nothing = rearrange(pair.hidden.all(dim=1), "b -> b 1 1 1")
    seen = rearrange(~pair.hidden, "b m -> b 1 1 m") | nothing  # a softmax over nothing is no number
    seen = seen.expand(-1, -1, queries.shape[2], -1)
    return attended(queries, pair.keys, pair.values, seen).masked_fill(nothing, 0)


class CrossAttentionLayer(nn.Module):
    """A layer before which each token reads the condition.

    Args:
        norm: of the tokens that ask.
        cross_attention: how they read.
        layer: what follows, of any kind.
        dropout: share of values dropped from what was read, in training.
    """

    def __init__(self, norm: nn.Module, cross_attention: CrossAttention, layer: nn.Module, dropout: float):
        super().__init__()
        self.norm, self.cross_attention, self.layer, self.dropout = norm, cross_attention, layer, dropout

    def forward(
        self, tokens: Float[Tensor, "b n width"], pair: KeyValuePair, *rest: Any
    ) -> Float[Tensor, "b n width"]:
        """`rest` is for the layer that follows."""
        added = self.cross_attention(self.norm(tokens), pair)
        return self.layer(tokens + dropout(added, self.dropout, self.training), *rest)
