"""Symbols: the representation of codes in a prior, for reading, predicting and sampling.

A code is one of K values. `Softmax` gives each value a vector and a logit, so memory and time grow with K.
`Bits` and `MaskedBits` read a code as its log2 K bits, so they grow with the bits: codebooks of 2^16 to 2^62
values then cost hardly more than small ones. `Factorized` reads a code as a few parts of any sizes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from genstack.errors import UserError
from genstack.prior.logits import sample_from_logits
from genstack.prior.options import SamplingOptions
from genstack.transformer.backbone import Backbone
from genstack.transformer.head import BitEmbedding, code_embedding, code_head, from_bits, linear_head, to_bits

#: Applies guidance to logits: two copies of the rows become one.
Guide = Callable[[Tensor], Tensor]


class Distribution(nn.Module, ABC):
    """Distribution of a code, given the outputs of the head, in float32."""

    #: Random numbers that sampling a code takes.
    numbers: int = 1

    @abstractmethod
    def nats(
        self, outputs: Float[Tensor, "*n outputs"], codes: Int[Tensor, "*n"], smoothing: float = 0.0
    ) -> Float[Tensor, "*n"]:
        """Negative log-likelihood of each code, in nats; with `smoothing`, a training loss."""

    @abstractmethod
    def sample(
        self,
        outputs: Float[Tensor, "rows outputs"],
        guide: Guide,
        options: SamplingOptions,
        uniforms: Float[Tensor, "n numbers"],
    ) -> Int[Tensor, " n"]:
        """Sample a code per row.

        Args:
            outputs: outputs of the head, for all copies of guidance.
            guide: guidance.
            options: temperature, top-k, top-p and min-p.
            uniforms: `numbers` numbers in [0, 1) per code.
        """

    @abstractmethod
    def score(
        self,
        outputs: Float[Tensor, "rows outputs"],
        guide: Guide,
        codes: Int[Tensor, " n"],
        normalized: bool = True,
    ) -> Float[Tensor, " n"]:
        """Log-probability of codes under guidance, at temperature 1; or their logit, if not `normalized`."""


class Categorical(Distribution):
    """Any distribution over K codes, by K logits."""

    def nats(
        self, outputs: Float[Tensor, "*n K"], codes: Int[Tensor, "*n"], smoothing: float = 0.0
    ) -> Float[Tensor, "*n"]:
        # Logits of a code stay adjacent in memory: over another axis, a CPU takes several times as long.
        nats = cross_entropy(
            outputs.flatten(0, -2), codes.flatten(), reduction="none", label_smoothing=smoothing
        )
        return nats.view_as(codes)

    def sample(
        self,
        outputs: Float[Tensor, "rows K"],
        guide: Guide,
        options: SamplingOptions,
        uniforms: Float[Tensor, "n numbers"],
    ) -> Int[Tensor, " n"]:
        return sample_from_logits(guide(outputs), options, uniforms.flatten())

    def score(
        self,
        outputs: Float[Tensor, "rows K"],
        guide: Guide,
        codes: Int[Tensor, " n"],
        normalized: bool = True,
    ) -> Float[Tensor, " n"]:
        logits = guide(outputs)
        return (logits.log_softmax(dim=-1) if normalized else logits).gather(1, codes[:, None])[:, 0]


class IndependentBits(Distribution):
    """Independent bits, by a logit per bit (Infinity, arXiv:2412.04431, section 3.2).

    Temperature, top-p and min-p act on each bit. A top-k of 1 takes the likelier value of each bit; a greater
    one keeps both.

    Args:
        bits: bits of a code.
    """

    def __init__(self, bits: int):
        super().__init__()
        self.bits = self.numbers = bits

    def nats(
        self, outputs: Float[Tensor, "*n bits"], codes: Int[Tensor, "*n"], smoothing: float = 0.0
    ) -> Float[Tensor, "*n"]:
        bits = to_bits(codes, self.bits).to(outputs.dtype)
        target = bits * (1 - smoothing) + smoothing / 2
        return binary_cross_entropy_with_logits(outputs, target, reduction="none").sum(-1)

    def sample(
        self,
        outputs: Float[Tensor, "rows bits"],
        guide: Guide,
        options: SamplingOptions,
        uniforms: Float[Tensor, "n numbers"],
    ) -> Int[Tensor, " n"]:
        return from_bits(sample_bits(guide(outputs), options, uniforms.reshape(-1, self.bits)))

    def score(
        self,
        outputs: Float[Tensor, "rows bits"],
        guide: Guide,
        codes: Int[Tensor, " n"],
        normalized: bool = True,
    ) -> Float[Tensor, " n"]:
        return score_of_bits(guide(outputs), to_bits(codes, self.bits), normalized)


def sample_bits(
    logits: Float[Tensor, "n bits"], options: SamplingOptions, uniforms: Float[Tensor, "n bits"]
) -> Int[Tensor, "n bits"]:
    """Sample independent bits, each as a code of two values with logits 0 and `logits`."""
    both = torch.stack([torch.zeros_like(logits), logits], dim=-1)
    return sample_from_logits(both.flatten(0, 1), options, uniforms.flatten()).view(logits.shape)


def score_of_bits(
    logits: Float[Tensor, "n bits"], bits: Int[Tensor, "n bits"], normalized: bool
) -> Float[Tensor, " n"]:
    """Log-probability of independent bits, or the sum of logits of bits that are 1."""
    if not normalized:
        return (logits * bits).sum(-1)
    return -binary_cross_entropy_with_logits(logits, bits.to(logits.dtype), reduction="none").sum(-1)


class Symbols(ABC):
    """Representation of codes in a prior: embedding, head and distribution; a frozen dataclass."""

    @abstractmethod
    def embedding(self, codebook_size: int, backbone: Backbone, tables: int = 1) -> nn.Embedding:
        """Vectors of codes; code c of table t has the index t * codebook_size + c."""

    @abstractmethod
    def head(self, embedding: nn.Embedding, table: int = 0, tables: int = 1, bias: bool = False) -> nn.Module:
        """From features to the outputs that `distribution` reads, for codes of one of the tables."""

    @abstractmethod
    def outputs(self, codebook_size: int, width: int) -> int:
        """Channels of the outputs for features of this width."""

    @abstractmethod
    def distribution(self, codebook_size: int, backbone: Backbone) -> Distribution:
        """Distribution of a code."""

    def likelihood(self, kind: str) -> str:
        """Kind of the likelihood of a prior that is of this kind given the likelihood of each code."""
        return kind


@dataclass(frozen=True)
class Softmax(Symbols):
    """A vector and a logit for each value of a code."""

    def embedding(self, codebook_size: int, backbone: Backbone, tables: int = 1) -> nn.Embedding:
        return code_embedding(tables * codebook_size, backbone.width, backbone.tied)

    def head(self, embedding: nn.Embedding, table: int = 0, tables: int = 1, bias: bool = False) -> nn.Module:
        return code_head(embedding, table, tables, bias)

    def outputs(self, codebook_size: int, width: int) -> int:
        return codebook_size

    def distribution(self, codebook_size: int, backbone: Backbone) -> Distribution:
        return Categorical()


@dataclass(frozen=True)
class BitTokens(Softmax):
    """A vector for each bit, and a logit for each value of a code (MaskBit, arXiv:2409.16211).

    The codebook has 2^n values. Codes that share bits have similar vectors, and bits of a code may depend on
    each other.
    """

    def embedding(self, codebook_size: int, backbone: Backbone, tables: int = 1) -> nn.Embedding:
        return BitEmbedding(count_bits(codebook_size), backbone.width, tables)

    def head(self, embedding: nn.Embedding, table: int = 0, tables: int = 1, bias: bool = False) -> nn.Module:
        return linear_head(embedding.embedding_dim, embedding.num_embeddings // tables, bias)


@dataclass(frozen=True)
class Bits(Symbols):
    """A vector and a logit for each bit; bits are independent given the context (Infinity, arXiv:2412.04431).

    The codebook has 2^n values, as in LFQ and BSQ, whose bits are signs of channels.
    """

    def embedding(self, codebook_size: int, backbone: Backbone, tables: int = 1) -> nn.Embedding:
        return BitEmbedding(count_bits(codebook_size), backbone.width, tables)

    def head(self, embedding: nn.Embedding, table: int = 0, tables: int = 1, bias: bool = False) -> nn.Module:
        return code_head(embedding, table, tables, bias)

    def outputs(self, codebook_size: int, width: int) -> int:
        return count_bits(codebook_size)

    def distribution(self, codebook_size: int, backbone: Backbone) -> Distribution:
        return IndependentBits(count_bits(codebook_size))


def count_bits(codebook_size: int) -> int:
    """Bits of a code.

    Raises:
        UserError: the codebook size is not a power of two.
    """
    if codebook_size < 2 or codebook_size & (codebook_size - 1):
        raise UserError(
            f"symbols in bits need a codebook of 2^n values, got {codebook_size}; use symbols Softmax, or a "
            f"compressor with the quantizer LFQ or BSQ"
        )
    return codebook_size.bit_length() - 1
