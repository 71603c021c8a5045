"""Attention masks: full, causal, block-causal, and any of them with padding."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention


def dot_product_attention(
    queries: Float[Tensor, "b h q d"],
    keys: Float[Tensor, "b kv_h k d"],
    values: Float[Tensor, "b kv_h k d"],
    visible: Bool[Tensor, "*images q k"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "b h q d"]:
    """Compute scaled dot-product attention, in float32 where bfloat16 is slow.

    With fewer key heads than query heads, each key head serves h / kv_h consecutive query heads. On a CPU the
    backward pass in bfloat16 takes many times as long as in float32.
    """
    dtype, grouped = queries.dtype, keys.shape[1] < queries.shape[1]
    attend = partial(scaled_dot_product_attention, attn_mask=visible, is_causal=causal, enable_gqa=grouped)
    if queries.device.type != "cpu" or dtype != torch.bfloat16 or not torch.is_grad_enabled():
        return attend(queries, keys, values)
    with torch.autocast("cpu", enabled=False):
        return attend(queries.float(), keys.float(), values.float()).to(dtype)


class Mask(ABC):
    """An attention mask. The q queries belong to the last q of k keys; earlier keys come from a cache."""

    @abstractmethod
    def visible(self, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "q k"]:
        """The mask as a matrix, True where a query attends to a key."""

    def attend(
        self,
        queries: Float[Tensor, "b h q d"],
        keys: Float[Tensor, "b kv_h k d"],
        values: Float[Tensor, "b kv_h k d"],
    ) -> Float[Tensor, "b h q d"]:
        """Compute attention under this mask."""
        visible = self.visible(queries.shape[2], keys.shape[2], keys.device)
        return dot_product_attention(queries, keys, values, visible)


@dataclass(frozen=True)
class Full(Mask):
    """Every token attends to every token."""

    def attend(
        self,
        queries: Float[Tensor, "b h q d"],
        keys: Float[Tensor, "b kv_h k d"],
        values: Float[Tensor, "b kv_h k d"],
    ) -> Float[Tensor, "b h q d"]:
        return dot_product_attention(queries, keys, values)

    def visible(self, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "q k"]:
        return torch.ones(queries, keys, dtype=torch.bool, device=device)


@dataclass(frozen=True)
class Causal(Mask):
    """A token attends to itself and to earlier tokens."""

    def attend(
        self,
        queries: Float[Tensor, "b h q d"],
        keys: Float[Tensor, "b kv_h k d"],
        values: Float[Tensor, "b kv_h k d"],
    ) -> Float[Tensor, "b h q d"]:
        length, total = queries.shape[2], keys.shape[2]
        if length in (1, total):
            return dot_product_attention(queries, keys, values, causal=length > 1)
        return super().attend(queries, keys, values)

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

    def attend(
        self,
        queries: Float[Tensor, "b h q d"],
        keys: Float[Tensor, "b kv_h k d"],
        values: Float[Tensor, "b kv_h k d"],
    ) -> Float[Tensor, "b h q d"]:
        length, total = queries.shape[2], keys.shape[2]
        prefix = self.padding_mask.shape[1]
        visible = self.visible(length, total, keys.device)
        content = pad(~self.padding_mask, (0, total - prefix), value=True)
        content = rearrange(content, "b k -> b 1 1 k")
        if total - length < prefix:  # otherwise no query can be padding
            content = content | torch.ones_like(visible).triu(total - length).tril(total - length)
        return dot_product_attention(queries, keys, values, visible & content)

    def visible(self, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "q k"]:
        """The matrix of the other mask, without padding."""
        return self.mask.visible(queries, keys, device)


def mask_padding(mask: Mask, padding_mask: Bool[Tensor, "b n"] | None) -> Mask:
    """Exclude padding from a mask, if there is any."""
    return mask if padding_mask is None else Padded(mask, padding_mask)
