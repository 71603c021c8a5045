"""Which tokens see which: all of them, those before (causal), or those of earlier and the same block.

Any of these may leave out tokens that are there to fill up: `Hiding`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention


def attended(
    queries: Float[Tensor, "b h q d"],
    keys: Float[Tensor, "b keyed k d"],
    values: Float[Tensor, "b keyed k d"],
    seen: Bool[Tensor, "*images q k"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "b h q d"]:
    """Attention itself; on a CPU its backward pass in bfloat16 takes many times that in float32.

    Of fewer heads of keys than of queries, the first is read by the first h / keyed of these, and so on.
    """
    dtype, shared = queries.dtype, keys.shape[1] < queries.shape[1]
    attend = partial(scaled_dot_product_attention, attn_mask=seen, is_causal=causal, enable_gqa=shared)
    if queries.device.type != "cpu" or dtype != torch.bfloat16 or not torch.is_grad_enabled():
        return attend(queries, keys, values)
    with torch.autocast("cpu", enabled=False):
        return attend(queries.float(), keys.float(), values.float()).to(dtype)


class Mask(ABC):
    """How queries attend to keys. Query i of q belongs to key k - q + i; those before are from a cache."""

    @abstractmethod
    def attend(
        self,
        queries: Float[Tensor, "b h q d"],
        keys: Float[Tensor, "b keyed k d"],
        values: Float[Tensor, "b keyed k d"],
    ) -> Float[Tensor, "b h q d"]: ...

    @abstractmethod
    def seen(self, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "q k"]:
        """Which keys each query sees, of so many of both."""


@dataclass(frozen=True)
class Full(Mask):
    """Every token sees every token."""

    def attend(
        self,
        queries: Float[Tensor, "b h q d"],
        keys: Float[Tensor, "b keyed k d"],
        values: Float[Tensor, "b keyed k d"],
    ) -> Float[Tensor, "b h q d"]:
        return attended(queries, keys, values)

    def seen(self, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "q k"]:
        return torch.ones(queries, keys, dtype=torch.bool, device=device)


@dataclass(frozen=True)
class Causal(Mask):
    """A token sees itself and the tokens before it."""

    def attend(
        self,
        queries: Float[Tensor, "b h q d"],
        keys: Float[Tensor, "b keyed k d"],
        values: Float[Tensor, "b keyed k d"],
    ) -> Float[Tensor, "b h q d"]:
        length, total = queries.shape[2], keys.shape[2]
        if length in (1, total):
            return attended(queries, keys, values, causal=length > 1)
        return attended(queries, keys, values, self.seen(length, total, keys.device))

    def seen(self, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "q k"]:
        return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


@dataclass(frozen=True, eq=False)
class BlockCausal(Mask):
    """A token sees the tokens of its own and of earlier blocks, such as the scales of a multi-scale code.

    Args:
        blocks: the number of each token's block.
    """

    blocks: Int[Tensor, " n"]

    def attend(
        self,
        queries: Float[Tensor, "b h q d"],
        keys: Float[Tensor, "b keyed k d"],
        values: Float[Tensor, "b keyed k d"],
    ) -> Float[Tensor, "b h q d"]:
        seen = self.seen(queries.shape[2], keys.shape[2], keys.device)
        return attended(queries, keys, values, seen)

    def seen(self, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "q k"]:
        return self.blocks[keys - queries : keys, None] >= self.blocks[None, :keys]


@dataclass(frozen=True, eq=False)
class Hiding(Mask):
    """What another mask lets see, without some of the first tokens of each image: only they see themselves.

    Args:
        mask: the other.
        hidden: True for each image's tokens to be left out, from the first token on; those behind are not.
    """

    mask: Mask
    hidden: Bool[Tensor, "b n"]

    def attend(
        self,
        queries: Float[Tensor, "b h q d"],
        keys: Float[Tensor, "b keyed k d"],
        values: Float[Tensor, "b keyed k d"],
    ) -> Float[Tensor, "b h q d"]:
        length, total = queries.shape[2], keys.shape[2]
        seen = self.seen(length, total, keys.device)
        shown = pad(~self.hidden, (0, total - self.hidden.shape[1]), value=True)
        shown = rearrange(shown, "b k -> b 1 1 k")
        if total - length < self.hidden.shape[1]:  # else no query is one of those that may be hidden
            shown = shown | torch.ones_like(seen).triu(total - length).tril(total - length)
        return attended(queries, keys, values, seen & shown)

    def seen(self, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "q k"]:
        """What the other mask lets see."""
        return self.mask.seen(queries, keys, device)


def hiding(mask: Mask, hidden: Bool[Tensor, "b n"] | None) -> Mask:
    """A mask that leaves out what is hidden, if anything is."""
    return mask if hidden is None else Hiding(mask, hidden)
