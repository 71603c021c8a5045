"""Attention masks: full, causal, block-causal, and any of them with padding."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

SHORT = 512  # keys; with more, products in bfloat16 are no quicker than attention in float32
#: True if this processor multiplies in bfloat16 without conversions in torch's own loops.
BFLOAT16 = torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def dot_product_attention(
    queries: Float[Tensor, "b h q d"],
    keys: Float[Tensor, "b kv_h k d"],
    values: Float[Tensor, "b kv_h k d"],
    visible: Bool[Tensor, "*images q k"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "b h q d"]:
    """Compute scaled dot-product attention, on a CPU in bfloat16 by the quickest way.

    With fewer key heads than query heads, each key head serves h / kv_h consecutive query heads. torch's own
    attention takes twice as long on a CPU in bfloat16 as in float32, backward and for a single query. In
    training, plain products in bfloat16 take half the time of float32, if the sequence is short.
    """
    grouped = keys.shape[1] < queries.shape[1]
    attend = partial(scaled_dot_product_attention, attn_mask=visible, is_causal=causal, enable_gqa=grouped)
    if queries.dtype != torch.bfloat16 or queries.device.type != "cpu":
        return attend(queries, keys, values)
    single = queries.shape[2] == 1
    if not single and not torch.is_grad_enabled():
        return attend(queries, keys, values)
    plain = visible is None or visible.ndim == 2
    if BFLOAT16 and not single and not grouped and plain and keys.shape[2] <= SHORT:
        return attend_by_products(queries, keys, values, visible, causal)
    with torch.autocast("cpu", enabled=False):
        return attend(queries.float(), keys.float(), values.float()).bfloat16()


def attend_by_products(
    queries: Float[Tensor, "b h q d"],
    keys: Float[Tensor, "b h k d"],
    values: Float[Tensor, "b h k d"],
    visible: Bool[Tensor, "q k"] | None,
    causal: bool,
) -> Float[Tensor, "b h q d"]:
    """Compute attention by two products, with all weights in memory; each query must attend to some key."""
    batch, _, _, width = queries.shape
    queries, keys, values = (each.flatten(0, 1) for each in (queries, keys, values))
    bias = queries.new_zeros(queries.shape[1], keys.shape[1])
    if causal:
        visible = torch.ones_like(bias, dtype=torch.bool).tril()
    if visible is not None:
        bias = bias.masked_fill(~visible, -torch.inf)
    scores = torch.baddbmm(bias, queries, keys.transpose(1, 2), alpha=width**-0.5)
    return torch.bmm(scores.softmax(dim=-1), values).unflatten(0, (batch, -1))


class Mask(ABC):
    """An attention mask. The q queries belong to the last q of k keys; earlier keys come from a cache."""

    @abstractmethod
    def visible(self, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "q k"]:
        """The mask as a matrix, True where a query attends to a key."""

    def arguments(
        self, queries: int, keys: int, device: torch.device
    ) -> tuple[Bool[Tensor, "*images q k"] | None, bool]:
        """Arguments of torch's attention: a matrix, or None, and whether it is causal."""
        return self.visible(queries, keys, device), False

    def attend(
        self,
        queries: Float[Tensor, "b h q d"],
        keys: Float[Tensor, "b kv_h k d"],
        values: Float[Tensor, "b kv_h k d"],
    ) -> Float[Tensor, "b h q d"]:
        """Compute attention under this mask."""
        arguments = self.arguments(queries.shape[2], keys.shape[2], keys.device)
        return dot_product_attention(queries, keys, values, *arguments)


@dataclass(frozen=True)
class Full(Mask):
    """Every token attends to every token."""

    def arguments(self, queries: int, keys: int, device: torch.device) -> tuple[None, bool]:
        return None, False

    def visible(self, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "q k"]:
        return torch.ones(queries, keys, dtype=torch.bool, device=device)


@dataclass(frozen=True)
class Causal(Mask):
    """A token attends to itself and to earlier tokens."""

    def arguments(
        self, queries: int, keys: int, device: torch.device
    ) -> tuple[Bool[Tensor, "q k"] | None, bool]:
        if queries in (1, keys):
            return None, queries > 1
        return self.visible(queries, keys, device), False

    def visible(self, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "q k"]:
        return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


@dataclass(frozen=True, eq=False)
class BlockCausal(Mask):
    """A token attends to its own block and to earlier ones, such as the scales of a multi-scale code.

    Args:
        blocks: block number of each token.
    """

    blocks: Int[Tensor, " n"]

    def visible(self, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "q k"]:
        return self.blocks[keys - queries : keys, None] >= self.blocks[None, :keys]


@dataclass(frozen=True, eq=False)
class Padded(Mask):
    """A mask that excludes padding tokens, which only attend to themselves.

    Args:
        mask: the other mask.
        padding_mask: True for padding, over each image's first tokens; later tokens are never padding.
    """

    mask: Mask
    padding_mask: Bool[Tensor, "b n"]

    def arguments(
        self, queries: int, keys: int, device: torch.device
    ) -> tuple[Bool[Tensor, "b one=1 _ k"], bool]:
        visible, prefix = self.visible(queries, keys, device), self.padding_mask.shape[1]
        content = pad(~self.padding_mask, (0, keys - prefix), value=True)
        content = rearrange(content, "b k -> b 1 1 k")
        if keys - queries < prefix:  # otherwise no query can be padding
            content = content | torch.ones_like(visible).triu(keys - queries).tril(keys - queries)
        return visible & content, False

    def visible(self, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "q k"]:
        """The matrix of the other mask, without padding."""
        return self.mask.visible(queries, keys, device)


def mask_padding(mask: Mask, padding_mask: Bool[Tensor, "b n"] | None) -> Mask:
    """Exclude padding from a mask, if there is any."""
    return mask if padding_mask is None else Padded(mask, padding_mask)
