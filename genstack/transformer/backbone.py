"""The plan of the transformer that priors share."""

from dataclasses import dataclass
from math import ceil
from typing import Literal

from genstack.errors import UserError


@dataclass(frozen=True)
class Backbone:
    """A plan of a transformer.

    Args:
        width: channels of a token, a multiple of `heads`.
        depth: number of layers.
        heads: attention heads of each layer.
        kv_heads: heads of keys and values in self-attention, a divisor of `heads`. Each answers several heads
            of queries, so that drawing keeps and reads less (arXiv:2305.13245). null: as many as `heads`.
        norm: normalization before each half of a layer: rms (root mean square, no mean) or layer.
        feedforward: second half of a layer: swiglu (gated, two thirds as wide, as many weights), gelu, or
            gelu_tanh, its approximation.
        ratio: hidden width of the second half over `width`, for gelu; swiglu takes two thirds of it, rounded
            up to a multiple of `rounding`, or of `width` where that is less.
        positions: how a token knows its place: rotary (angles of row and column) or learned (a vector each).
        qk_norm: normalize queries and keys of each head; keeps attention stable in long and in bf16 training.
            unit: to vectors of length one, with a learned temperature for each head (arXiv:2010.04245).
        dropout: share of values dropped from the tokens at the start and from what each half of a layer adds.
        bias: give the linear layers (and layer norms) biases.
        checkpoint: forget activations and compute them again in the backward pass: less memory, more time.
        rounding: see `ratio`.
        unplaced: rotary queries and keys of a token without a place, such as a condition: kept as they are,
            or zero, so that such tokens weigh alike for all (as in LlamaGen, arXiv:2406.06525).
        adaln: let the condition also scale, shift and gate what each layer computes (adaptive norms): own
            (each layer has weights for it), shared (one set for all layers) or none.
        cross_attention: let each layer read the tokens of the condition by cross-attention. Only their mean
            then stands before the codes. For captions and images, which are many tokens.
    """

    width: int = 384
    depth: int = 8
    heads: int = 6
    norm: Literal["rms", "layer"] = "rms"
    feedforward: Literal["swiglu", "gelu", "gelu_tanh"] = "swiglu"
    ratio: float = 4.0
    positions: Literal["rotary", "learned"] = "rotary"
    qk_norm: bool | Literal["unit"] = True
    dropout: float = 0.1
    bias: bool = False
    checkpoint: bool = False
    rounding: int = 256
    unplaced: Literal["kept", "zero"] = "kept"
    adaln: Literal["none", "own", "shared"] = "none"
    cross_attention: bool = False
    kv_heads: int | None = None

    def __post_init__(self) -> None:
        if self.rounding < 1:
            raise UserError(f"rounding {self.rounding} is out of range; it is at least 1")
        if min(self.width, self.depth, self.heads) < 1:
            raise UserError(
                f"width, depth and heads are at least 1, not {self.width}, {self.depth} and {self.heads}"
            )
        if self.ratio <= 0 or not 0 <= self.dropout < 1:
            raise UserError(
                f"ratio is above 0, dropout at least 0 and below 1, not {self.ratio} and {self.dropout}"
            )
        step = self.heads * (4 if self.positions == "rotary" else 1)
        if self.width % step:
            raise UserError(
                f"width {self.width} is not a multiple of {step} ({self.heads} heads, {self.positions}); "
                f"use {ceil(self.width / step) * step} or change `heads`"
            )

        if self.kv_heads is not None and (self.kv_heads < 1 or self.heads % self.kv_heads):
            raise UserError(
                f"kv_heads {self.kv_heads} does not divide {self.heads} heads; use one of "
                f"{', '.join(str(count) for count in range(1, self.heads + 1) if self.heads % count == 0)}"
            )

    @property
    def head_width(self) -> int:
        """Channels of one head."""
        return self.width // self.heads

    @property
    def keyed(self) -> int:
        """Heads of keys and values."""
        return self.heads if self.kv_heads is None else self.kv_heads

    def before(self, length: int) -> int:
        """How many tokens stand before the codes for a condition of so many."""
        return 1 if self.cross_attention else length

    @property
    def hidden(self) -> int:
        """Hidden width of the second half of a layer."""
        if self.feedforward != "swiglu":
            return round(self.ratio * self.width)
        step = min(self.rounding, self.width)
        return ceil(int(self.ratio * self.width * 2 / 3) / step) * step
