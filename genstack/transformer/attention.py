"""Self-attention, and what is done to queries and keys before they meet."""

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
        # On a CPU that is many passes over memory, twice as many back.
        square = torch.linalg.vector_norm(heads, dim=-1, keepdim=True).square() / heads.shape[-1]
        return heads * ((square + EPSILON).rsqrt() * gain)


class UnitNorm(nn.Module):
    """Queries and keys of length one, queries times a learned scale of their head (arXiv:2010.04245)."""

    def __init__(self, heads: int, head_width: int):
        super().__init__()
        self.root = head_width**0.5  # attention divides by it again
        self.scale = nn.Parameter(torch.full((heads,), log(4)))

    def forward(self, heads: Float[Tensor, "b n h d"]) -> Float[Tensor, "b n h d"]:
        """The first of the heads are queries."""
        unit, asking = normalize(heads.float(), dim=-1), len(self.scale)
        scale = self.root * self.scale.clamp(max=log(100)).exp()
        queries = unit[:, :, :asking] * rearrange(scale, "h -> h 1")
        return torch.cat([queries, unit[:, :, asking:]], dim=2)


def meeting_norm(backbone: Backbone) -> nn.Module:
    """What is done to queries and keys, one tensor of the heads of both, before they meet."""
    if backbone.qk_norm == "unit":
        return UnitNorm(backbone.heads, backbone.head_width)
    heads = backbone.heads + backbone.keyed
    return HeadNorm(heads, backbone.head_width) if backbone.qk_norm else nn.Identity()


def crossing_norm(backbone: Backbone) -> nn.Module:
    """What is done to the queries, or to the keys, of cross-attention before they meet."""
    return HeadNorm(backbone.heads, backbone.head_width) if backbone.qk_norm else nn.Identity()


class Attention(nn.Module):
    """Self-attention of several heads. Queries and keys are one tensor of all their heads until they meet."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.heads, self.keyed = backbone.heads, backbone.keyed
        both = backbone.width + 2 * backbone.keyed * backbone.head_width
        self.read = nn.Linear(backbone.width, both, bias=backbone.bias)
        self.norm = meeting_norm(backbone)
        self.write = nn.Linear(backbone.width, backbone.width, bias=backbone.bias)

    def forward(
        self, tokens: Float[Tensor, "b n width"], rotation: Rotation | None, mask: Mask, cache: Cache | None
    ) -> Float[Tensor, "b n width"]:
        heads = rearrange(self.read(tokens), "b n (h d) -> b n h d", h=self.heads + 2 * self.keyed)
        meeting, values = heads.split([self.heads + self.keyed, self.keyed], dim=2)
        meeting, values = self.norm(meeting).transpose(1, 2), values.transpose(1, 2)
        if rotation is not None:
            meeting = rotation(meeting)
        queries, keys = meeting.type_as(values).split([self.heads, self.keyed], dim=1)
        if cache is not None:
            keys, values = cache.append(keys, values)
        return self.write(rearrange(mask.attend(queries, keys, values), "b h n d -> b n (h d)"))
