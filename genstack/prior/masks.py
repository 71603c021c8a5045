"""Which tokens see which: all of them, those before (causal), or those of earlier and the same block."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attended(
    queries: Float[Tensor, "b h q d"],
    keys: Float[Tensor, "b h k d"],
    values: Float[Tensor, "b h k d"],
    seen: Bool[Tensor, "q k"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "b h q d"]:
    """Attention itself; on a CPU its backward pass in bfloat16 takes many times that in float32."""
    dtype = queries.dtype
    if queries.device.type == "cpu" and dtype == torch.bfloat16 and torch.is_grad_enabled():
        queries, keys, values = queries.float(), keys.float(), values.float()
    with torch.autocast(queries.device.type, enabled=False):
        made = scaled_dot_product_attention(queries, keys, values, attn_mask=seen, is_causal=causal)
    return made.to(dtype)


class Mask(ABC):
    """How queries attend to keys. Query i of q belongs to key k - q + i; those before are from a cache."""

    @abstractmethod
    def attend(
        self,
        queries: Float[Tensor, "b h q d"],
        keys: Float[Tensor, "b h k d"],
        values: Float[Tensor, "b h k d"],
    ) -> Float[Tensor, "b h q d"]: ...


@dataclass(frozen=True)
class Full(Mask):
    """Every token sees every token."""

    def attend(
        self,
        queries: Float[Tensor, "b h q d"],
        keys: Float[Tensor, "b h k d"],
        values: Float[Tensor, "b h k d"],
    ) -> Float[Tensor, "b h q d"]:
        return attended(queries, keys, values)


@dataclass(frozen=True)
class Causal(Mask):
    """A token sees itself and the tokens before it."""

    def attend(
        self,
        queries: Float[Tensor, "b h q d"],
        keys: Float[Tensor, "b h k d"],
        values: Float[Tensor, "b h k d"],
    ) -> Float[Tensor, "b h q d"]:
        length, total = queries.shape[2], keys.shape[2]
        if length in (1, total):
            return attended(queries, keys, values, causal=length > 1)
        seen = torch.ones(length, total, dtype=torch.bool, device=keys.device).tril(total - length)
        return attended(queries, keys, values, seen)


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
        keys: Float[Tensor, "b h k d"],
        values: Float[Tensor, "b h k d"],
    ) -> Float[Tensor, "b h q d"]:
        length, total = queries.shape[2], keys.shape[2]
        seen = self.blocks[total - length : total, None] >= self.blocks[None, :total]
        return attended(queries, keys, values, seen)
