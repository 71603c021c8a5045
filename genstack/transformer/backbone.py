"""Configuration of the transformer that priors share."""

from dataclasses import dataclass
from math import ceil
from typing import Literal

from genstack.errors import UserError

#: Dropout in the first pass of a training over its images, in the second, in the third, and from the fourth
#: on, measured in benchmarks/README.md, "Dropout".
DROPOUT = (0.1, 0.2, 0.3, 0.4)
FEWEST_PASSES = 5  # of a training whose dropout grows; a shorter one memorizes little


@dataclass(frozen=True)
class Backbone:
    """Configuration of a transformer.

    Args:
        width: channels of a token, a multiple of `heads`.
        depth: number of layers.
        heads: attention heads of each layer.
        kv_heads: heads of keys and values in self-attention, a divisor of `heads`; each serves several query
            heads, so the cache in sampling is smaller (grouped-query attention, arXiv:2305.13245).
            null: as many as `heads`.
        norm: pre-normalization of each sub-layer: rms (root mean square, no mean) or layer.
        feedforward: swiglu (gated, two thirds as wide, as many weights), gelu, or its approximation
            gelu_tanh.
        ratio: width of the MLP over `width`, for gelu; swiglu takes two thirds of it, rounded up to a
            multiple of `rounding`, or of `width` if that is less.
        positions: rotary (2-D rotary embeddings of row and column), learned (a vector per position) or both.
        qk_norm: normalize queries and keys of each head; keeps attention stable in long and in bf16 training.
            unit: to unit length, with a learned temperature per head (arXiv:2010.04245). layer: layer norm
            (RAR). width: root mean square over all heads together, without weights (Halton-MaskGIT).
        dropout: share of values dropped from the embedded tokens and from the output of each sub-layer.
            null: 0.1; with `Autoregressive`, in a training of 5 passes over its images or more, 0.1 in the
            first pass, 0.2 in the second, 0.3 in the third and 0.4 from the fourth on. A loop of yours sets
            it by `Transformer.set_dropout`; until then it is 0.3.
        bias: give linear layers (and layer norms) biases.
        checkpoint: recompute activations in the backward pass: less memory, more time.
        rounding: see `ratio`.
        unplaced: queries and keys of tokens without a position, such as condition tokens, which get no rotary
            embedding: kept, or set to zero, which weighs all such tokens equally (as in LlamaGen,
            arXiv:2406.06525).
        adaln: let the condition scale, shift and gate each layer (adaLN): own (weights per layer), shared
            (one set for all layers) or none.
        cross_attention: let each layer attend to the condition's tokens by cross-attention; only their mean
            then precedes the codes. For captions and images, which are many tokens.
        tied: predict codes by the vectors of their embedding (weight tying), not by a separate head; for all
            priors but NextScale, which embeds no codes.
        head_dim: channels of one head, if not `width` over `heads`.
        epsilon: added to mean squares by norms; null: 1e-5, and 1e-6 in adaLN.
        registers: learned tokens before all others, without a meaning of their own (arXiv:2309.16588).
        prefix: put the condition before the codes as tokens; false, with adaLN or cross-attention, leaves it
            to these.
        adaln_steps: add a learned vector per place in the sequence to the condition of adaLN (RAR,
            arXiv:2411.00776).
        head_bias: give the head that predicts codes a bias.
        post_norm: normalize the sum after each sub-layer, and tokens before the first, as in BERT, rather
            than what a sub-layer reads.
        skips: skip connections of U-ViT (arXiv:2209.12152): the last layer also reads the output of the
            first, the one before it the output of the second, and so on.
        last: what follows the last layer: norm (nothing with `post_norm`); none, for symbols that normalize
            (Open-MAGVIT2); or mlp, which adds a linear layer, GELU and a norm (BERT, MaskBit).
    """

    width: int = 384
    depth: int = 8
    heads: int = 6
    norm: Literal["rms", "layer"] = "rms"
    feedforward: Literal["swiglu", "gelu", "gelu_tanh"] = "swiglu"
    ratio: float = 4.0
    positions: Literal["rotary", "learned", "both"] = "both"
    qk_norm: bool | Literal["unit", "layer", "width"] = True
    dropout: float | None = None
    bias: bool = False
    checkpoint: bool = False
    rounding: int = 256
    unplaced: Literal["kept", "zero"] = "kept"
    adaln: Literal["none", "own", "shared"] = "none"
    cross_attention: bool = False
    kv_heads: int | None = None
    tied: bool = True
    head_dim: int | None = None
    epsilon: float | None = None
    registers: int = 0
    prefix: bool = True
    adaln_steps: bool = False
    head_bias: bool = False
    post_norm: bool = False
    skips: bool = False
    last: Literal["norm", "none", "mlp"] = "norm"

    def __post_init__(self) -> None:
        if self.rounding < 1:
            raise UserError(f"rounding must be at least 1, got {self.rounding}")
        if min(self.width, self.depth, self.heads) < 1:
            raise UserError(
                f"width, depth and heads must be at least 1, got {self.width}, {self.depth} and {self.heads}"
            )
        if self.ratio <= 0:
            raise UserError(f"ratio must be above 0, got {self.ratio}")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise UserError(f"dropout must be at least 0 and below 1, got {self.dropout}")
        self.check_heads()
        if self.epsilon is not None and self.epsilon <= 0:
            raise UserError(f"epsilon must be above 0, got {self.epsilon}")
        if self.registers < 0:
            raise UserError(f"registers must be at least 0, got {self.registers}")
        if self.post_norm and self.adaln != "none":
            raise UserError("post_norm and adaLN exclude each other; use `adaln: none`")
        if self.last != "norm" and self.adaln != "none":
            raise UserError(f"last {self.last} and adaLN exclude each other; use `adaln: none`")
        if self.adaln == "none" and self.adaln_steps:
            raise UserError("adaln_steps needs `adaln: own` or shared")
        if self.adaln == "none" and not self.prefix and not self.cross_attention:
            raise UserError("without a prefix, the condition needs `adaln: own`, shared, or cross_attention")

    def check_heads(self) -> None:
        """Check that heads divide the width, or have a number of channels of their own."""
        planes = 1 if self.positions == "learned" else 4
        if self.head_dim is not None:
            if self.head_dim < 1 or self.head_dim % planes or self.cross_attention:
                raise UserError(
                    f"head_dim must be a multiple of {planes} ({self.positions}), without cross_attention; "
                    f"got {self.head_dim}"
                )
        elif self.width % (step := self.heads * planes):
            raise UserError(
                f"width {self.width} is not a multiple of {step} ({self.heads} heads, {self.positions}); "
                f"use {ceil(self.width / step) * step} or change `heads`"
            )

        if self.kv_heads is not None and (self.kv_heads < 1 or self.heads % self.kv_heads):
            raise UserError(
                f"kv_heads {self.kv_heads} does not divide {self.heads} heads; use one of "
                f"{', '.join(str(count) for count in range(1, self.heads + 1) if self.heads % count == 0)}"
            )

    def dropout_after(self, passes: float = 0.0) -> float:
        """Dropout after so many passes over the same predictions."""
        return DROPOUT[min(int(passes), len(DROPOUT) - 1)] if self.dropout is None else self.dropout

    @property
    def head_width(self) -> int:
        """Channels of one head, with the default resolved."""
        return self.width // self.heads if self.head_dim is None else self.head_dim

    @property
    def norm_epsilon(self) -> float:
        """Added to mean squares by norms with weights of their own, and of queries and keys."""
        return 1e-5 if self.epsilon is None else self.epsilon

    @property
    def adaln_epsilon(self) -> float:
        """Added to mean squares by the norms of adaLN."""
        return 1e-6 if self.epsilon is None else self.epsilon

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values, with the default resolved."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def mlp_width(self) -> int:
        """Hidden channels of the feed-forward network."""
        if self.feedforward != "swiglu":
            return round(self.ratio * self.width)
        step = min(self.rounding, self.width)
        return ceil(int(self.ratio * self.width * 2 / 3) / step) * step

    def prefix_length(self, length: int) -> int:
        """Tokens before the codes for a condition of `length` tokens."""
        return self.registers + (0 if not self.prefix else 1 if self.cross_attention else length)

    def causal_prefix_length(self, length: int) -> int:
        """Apply `prefix_length`, where the last of these tokens predicts the first code."""
        if self.prefix_length(length) == 0:
            raise UserError(
                "the first code needs a token before it; use `prefix: true`, or 1 for `registers`"
            )
        return self.prefix_length(length)
