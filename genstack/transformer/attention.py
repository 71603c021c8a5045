"""Self-attention, and the norms of queries and keys."""

from math import log

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize, rms_norm

from genstack.transformer.backbone import Backbone
from genstack.transformer.cache import Cache
from genstack.transformer.masks import Mask
from genstack.transformer.positions import Rotation

EPSILON = 1e-5


class HeadNorm(nn.Module):
    """Root mean square norm over the channels of each head, in float32 (arXiv:2302.05442)."""

    def __init__(self, heads: int, head_width: int):
        super().__init__()
        self.heads = heads
        self.gain = nn.Parameter(torch.ones(heads * head_width))

    def forward(self, heads: Float[Tensor, "b n h d"]) -> Float[Tensor, "b n h d"]:
        gain, heads = rearrange(self.gain, "(h d) -> h d", h=self.heads), heads.float()
        if heads.device.type != "cpu":
            return rms_norm(heads, heads.shape[-1:], eps=EPSILON) * gain
        # torch's rms_norm makes several passes over memory on a CPU, and twice as many backward.
        square = torch.linalg.vector_norm(heads, dim=-1, keepdim=True).square() / heads.shape[-1]
        return heads * ((square + EPSILON).rsqrt() * gain)


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
    heads = backbone.heads + backbone.key_value_heads
    return HeadNorm(heads, backbone.head_width) if backbone.qk_norm else nn.Identity()


def cross_qk_norm(backbone: Backbone) -> nn.Module:
    """Norm of the queries, or of the keys, of cross-attention."""
    return HeadNorm(backbone.heads, backbone.head_width) if backbone.qk_norm else nn.Identity()


class Attention(nn.Module):
    """Multi-head self-attention. Queries and keys stay one tensor until they are normalized and rotated."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.heads, self.kv_heads = backbone.heads, backbone.key_value_heads
        channels = backbone.width + 2 * self.kv_heads * backbone.head_width
        self.qkv = nn.Linear(backbone.width, channels, bias=backbone.bias)
        self.norm = qk_norm(backbone)
        self.out = nn.Linear(backbone.width, backbone.width, bias=backbone.bias)

    def forward(
        self, tokens: Float[Tensor, "b n width"], rotation: Rotation | None, mask: Mask, cache: Cache | None
    ) -> Float[Tensor, "b n width"]:
        heads = rearrange(self.qkv(tokens), "b n (h d) -> b n h d", h=self.heads + 2 * self.kv_heads)
        query_keys, values = heads.split([self.heads + self.kv_heads, self.kv_heads], dim=2)
        query_keys, values = self.norm(query_keys).transpose(1, 2), values.transpose(1, 2)
        if rotation is not None:
            query_keys = rotation(query_keys)
        queries, keys = query_keys.type_as(values).split([self.heads, self.kv_heads], dim=1)
        if cache is not None:
            keys, values = cache.append(keys, values)
        return self.out(rearrange(mask.attend(queries, keys, values), "b h n d -> b n (h d)"))
