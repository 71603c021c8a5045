"""Self-attention, and the norms of queries and keys."""

from math import log

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, normalize, rms_norm

from genstack.transformer.backbone import Backbone
from genstack.transformer.cache import Cache
from genstack.transformer.masks import Mask
from genstack.transformer.positions import Rotation
from genstack.transformer.rms_norm import CPUNorm


class HeadNorm(nn.Module):
    """Root mean square norm over the channels of each head, in float32 (arXiv:2302.05442)."""

    def __init__(self, heads: int, head_width: int, epsilon: float):
        super().__init__()
        self.heads, self.epsilon = heads, epsilon
        self.gain = nn.Parameter(torch.ones(heads * head_width))
        self.normalize = CPUNorm(epsilon)

    def forward(self, heads: Float[Tensor, "b n h d"]) -> Float[Tensor, "b n h d"]:
        gain, heads = self.gain.view(self.heads, -1), heads.float()
        if heads.device.type != "cpu":
            return rms_norm(heads, heads.shape[-1:], eps=self.epsilon) * gain
        return self.normalize(heads, gain)


class HeadLayerNorm(nn.Module):
    """Layer norm over the channels of each head, in float32."""

    def __init__(self, heads: int, head_width: int, epsilon: float):
        super().__init__()
        self.heads, self.epsilon = heads, epsilon
        self.gain = nn.Parameter(torch.ones(heads * head_width))
        self.bias = nn.Parameter(torch.zeros(heads * head_width))

    def forward(self, heads: Float[Tensor, "b n h d"]) -> Float[Tensor, "b n h d"]:
        gain, bias = (rearrange(each, "(h d) -> h d", h=self.heads) for each in (self.gain, self.bias))
        return layer_norm(heads.float(), heads.shape[-1:], eps=self.epsilon) * gain + bias


class WidthNorm(nn.Module):
    """Root mean square norm over all heads together, of queries and of keys, without weights.

    Args:
        heads: number of heads of queries, which come first.
        epsilon: added to the mean square.
    """

    def __init__(self, heads: int, epsilon: float):
        super().__init__()
        self.heads, self.epsilon = heads, epsilon

    def forward(self, heads: Float[Tensor, "b n h d"]) -> Float[Tensor, "b n h d"]:
        parts = heads.float().tensor_split([self.heads], dim=2)
        return torch.cat([rms_norm(part, part.shape[-2:], eps=self.epsilon) for part in parts], dim=2)


class UnitNorm(nn.Module):
    """Queries and keys of unit length; queries times a learned scale of their head (arXiv:2010.04245)."""

    def __init__(self, heads: int, head_width: int):
        super().__init__()
        self.root = head_width**0.5  # attention divides by it again
        self.scale = nn.Parameter(torch.full((heads,), log(4)))

    def forward(self, heads: Float[Tensor, "b n h d"]) -> Float[Tensor, "b n h d"]:
        """Normalize all heads; the first `len(self.scale)` are queries."""
        unit, count = normalize(heads.float(), dim=-1), len(self.scale)
        scale = self.root * self.scale.clamp(max=log(100)).exp()
        queries = unit[:, :, :count] * rearrange(scale, "h -> h 1")
        return torch.cat([queries, unit[:, :, count:]], dim=2)


def qk_norm(backbone: Backbone) -> nn.Module:
    """Norm of the queries and keys of self-attention, which are one tensor of heads."""
    if backbone.qk_norm == "unit":
        return UnitNorm(backbone.heads, backbone.head_width)
    heads, epsilon = backbone.heads + backbone.key_value_heads, backbone.norm_epsilon
    if backbone.qk_norm == "width":
        return WidthNorm(backbone.heads, epsilon)
    if backbone.qk_norm == "layer":
        return HeadLayerNorm(heads, backbone.head_width, epsilon)
    return HeadNorm(heads, backbone.head_width, epsilon) if backbone.qk_norm else nn.Identity()


def cross_qk_norm(backbone: Backbone) -> nn.Module:
    """Norm of the queries, or of the keys, of cross-attention."""
    heads, epsilon = backbone.heads, backbone.norm_epsilon
    return HeadNorm(heads, backbone.head_width, epsilon) if backbone.qk_norm else nn.Identity()


class Attention(nn.Module):
    """Multi-head self-attention. Queries and keys stay one tensor until they are normalized and rotated."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.heads, self.kv_heads = backbone.heads, backbone.key_value_heads
        channels = (self.heads + 2 * self.kv_heads) * backbone.head_width
        self.qkv = nn.Linear(backbone.width, channels, bias=backbone.bias)
        self.norm = qk_norm(backbone)
        self.out = nn.Linear(self.heads * backbone.head_width, backbone.width, bias=backbone.bias)

    def forward(
        self, tokens: Float[Tensor, "b n width"], rotation: Rotation | None, mask: Mask, cache: Cache | None
    ) -> Float[Tensor, "b n width"]:
        # Sampling a code takes microseconds here: `unflatten` and `flatten` take a third of a rearrange.
        heads = self.qkv(tokens).unflatten(-1, (self.heads + 2 * self.kv_heads, -1))
        query_keys, values = heads.split_with_sizes([self.heads + self.kv_heads, self.kv_heads], dim=2)
        query_keys, values = self.norm(query_keys).transpose(1, 2), values.transpose(1, 2)
        if rotation is not None:
            query_keys = rotation(query_keys)
        queries, keys = query_keys.type_as(values).split_with_sizes([self.heads, self.kv_heads], dim=1)
        if cache is not None:
            keys, values = cache.append(keys, values)
        return self.out(mask.attend(queries, keys, values).transpose(1, 2).flatten(2))
