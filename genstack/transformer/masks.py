"""Attention masks: full, causal, block-causal, and any of them with padding."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from genstack.dot_product_attention import dot_product_attention


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
