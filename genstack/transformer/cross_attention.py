"""Cross-attention to a condition (Vaswani et al. 2017, arXiv:1706.03762, 3.2.3; Parti, arXiv:2206.10789).

A long condition before the codes lengthens the sequence of every layer. Cross-attention adds only queries
for each code; keys and values of the condition are computed once per sample.
"""

from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from genstack.dot_product_attention import dot_product_attention
from genstack.transformer.attention import cross_qk_norm
from genstack.transformer.backbone import Backbone


class KeyValuePair(NamedTuple):
    """Keys and values of a condition for one layer; the padding mask is None without padding."""

    keys: Float[Tensor, "b h m d"]
    values: Float[Tensor, "b h m d"]
    padding_mask: Bool[Tensor, "b m"] | None


class KeyValue(nn.Module):
    """Project the tokens of a condition to keys and values for one layer.

    It is not part of the layer, because it runs once per sample and the layer once per code.
    """

    def __init__(self, backbone: Backbone):
        super().__init__()
        width = backbone.width
        self.heads, self.key_norm = backbone.heads, cross_qk_norm(backbone)
        self.norm = nn.RMSNorm(width, eps=1e-5)  # small embeddings would be learned late
        self.kv = nn.Linear(width, 2 * width, bias=backbone.bias)

    def forward(
        self, condition: Float[Tensor, "b m width"], padding_mask: Bool[Tensor, "b m"] | None
    ) -> KeyValuePair:
        heads = self.kv(self.norm(condition))
        keys, values = rearrange(heads, "b m (two h d) -> two b m h d", two=2, h=self.heads)
        keys = self.key_norm(keys).type_as(values)
        # Copies, because FSDP hooks the outputs of a module and cannot hook views.
        keys, values = (
            each.transpose(1, 2).clone(memory_format=torch.contiguous_format) for each in (keys, values)
        )
        return KeyValuePair(keys, values, padding_mask)


class CrossAttention(nn.Module):
    """Attention from tokens (queries) to a condition (keys and values)."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        width = backbone.width
        self.heads, self.query_norm = backbone.heads, cross_qk_norm(backbone)
        self.q = nn.Linear(width, width, bias=backbone.bias)
        self.out = nn.Linear(width, width, bias=backbone.bias)

    def forward(self, tokens: Float[Tensor, "b n width"], pair: KeyValuePair) -> Float[Tensor, "b n width"]:
        queries = self.query_norm(rearrange(self.q(tokens), "b n (h d) -> b n h d", h=self.heads))
        queries = rearrange(queries, "b n h d -> b h n d").type_as(pair.values)
        return self.out(rearrange(attend_condition(queries, pair), "b h n d -> b n (h d)"))


def attend_condition(queries: Float[Tensor, "b h n d"], pair: KeyValuePair) -> Float[Tensor, "b h n d"]:
    """Attend to a condition; the result is 0 for images whose tokens are all padding."""
    if pair.padding_mask is None:
        return dot_product_attention(queries, pair.keys, pair.values)
    empty = rearrange(pair.padding_mask.all(dim=1), "b -> b 1 1 1")
    visible = rearrange(~pair.padding_mask, "b m -> b 1 1 m") | empty  # a softmax over no key is not a number
    visible = visible.expand(-1, -1, queries.shape[2], -1)
    return dot_product_attention(queries, pair.keys, pair.values, visible).masked_fill(empty, 0)


class CrossAttentionLayer(nn.Module):
    """Pre-norm cross-attention to the condition with dropout, followed by a transformer layer of any kind."""

    def __init__(self, norm: nn.Module, cross_attention: CrossAttention, layer: nn.Module, dropout: float):
        super().__init__()
        self.norm, self.cross_attention, self.layer = norm, cross_attention, layer
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, tokens: Float[Tensor, "b n width"], pair: KeyValuePair, *rest: Any
    ) -> Float[Tensor, "b n width"]:
        """Attend to the condition, then apply the layer to the result and `rest`."""
        added = self.cross_attention(self.norm(tokens), pair)
        return self.layer(tokens + self.dropout(added), *rest)
