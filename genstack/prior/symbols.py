"""Symbols: how a prior reads a code, predicts it and samples it.

A code is one of K values. `Softmax` gives each value a vector and a logit, so memory and time grow with K.
`Bits` and `MaskedBits` read a code as its log2 K bits, so they grow with the bits: codebooks of 2^16 to 2^62
values then cost hardly more than small ones.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, rms_norm, silu

from genstack.errors import UserError
from genstack.prior.logits import sample_from_logits
from genstack.prior.options import SamplingOptions
from genstack.transformer.adaln import Modulation
from genstack.transformer.backbone import Backbone
from genstack.transformer.head import BitEmbedding, code_embedding, code_head, from_bits, to_bits

#: Applies guidance to logits: two copies of the rows become one.
Guide = Callable[[Tensor], Tensor]


class Distribution(nn.Module, ABC):
    """Distribution of a code, given what the head makes of the features: its outputs, in float32."""

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
        logits = outputs if codes.ndim == 1 else rearrange(outputs, "b n K -> b K n")
        return cross_entropy(logits, codes, reduction="none", label_smoothing=smoothing)

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


class MaskedBitDistribution(Distribution):
    """Bits that are filled in over a few steps, by a small network (BAR, arXiv:2602.09024).

    It reads the features and the bits so far, and predicts the masked ones, so bits may depend on each other.

    `nats` is the cost of sampling bit by bit, as a mean over fixed orders of the bits: by Jensen's inequality
    an upper bound on the cost of sampling in one of these orders at random. In training, one random set of
    masked bits stands for all orders (arXiv:2110.02037, equation 3).

    Args:
        bits: bits of a code.
        features: channels of the features.
        plan: configuration.
    """

    def __init__(self, bits: int, features: int, plan: "MaskedBits"):
        super().__init__()
        self.bits, self.steps = bits, min(plan.steps, bits)
        self.numbers = 2 * bits  # for the values, and for their order
        width = plan.width
        self.condition = nn.Linear(features, width)
        self.embedding = nn.Linear(2 * bits, width, bias=False)
        self.layers = nn.ModuleList(BitLayer(width) for _ in range(plan.depth))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, bits)
        for layer in (self.condition, self.embedding, self.head):
            nn.init.normal_(layer.weight, std=0.02)
        for layer in (self.condition, self.head):
            nn.init.zeros_(layer.bias)
        generator = torch.Generator().manual_seed(0)
        orders = [torch.randperm(bits, generator=generator) for _ in range(plan.orders)]
        self.register_buffer("ranks", torch.stack(orders).argsort(dim=1), persistent=False)

    def forward(
        self,
        features: Float[Tensor, "*n features"],
        bits: Int[Tensor, "*n bits"],
        masked: Bool[Tensor, "*n bits"],
    ) -> Float[Tensor, "*n bits"]:
        """Logits of all bits, given those that are not masked; in float32."""
        known = (~masked).to(features.dtype)
        condition = self.condition(features)
        hidden = condition + self.embedding(torch.cat([(bits * 2 - 1) * known, known], dim=-1))
        for layer in self.layers:
            hidden = layer(hidden, condition)
        return self.head(self.norm(hidden)).float()

    def nats(
        self, outputs: Float[Tensor, "*n features"], codes: Int[Tensor, "*n"], smoothing: float = 0.0
    ) -> Float[Tensor, "*n"]:
        bits = to_bits(codes, self.bits)
        target = bits * (1 - smoothing) + smoothing / 2
        if self.training:
            count = torch.randint(1, self.bits + 1, (*codes.shape, 1), device=codes.device)
            ranks = torch.rand(bits.shape, device=codes.device).argsort(-1).argsort(-1)
            masked = ranks < count
            return self._cost(outputs, bits, target, masked, masked) * (self.bits / count[..., 0])
        total = torch.zeros(codes.shape, device=outputs.device)
        for ranks in self.get_buffer("ranks"):
            for step in range(self.bits):
                masked = (ranks >= step).expand_as(bits)
                total = total + self._cost(outputs, bits, target, masked, ranks == step)
        return total / len(self.get_buffer("ranks"))

    def sample(
        self,
        outputs: Float[Tensor, "rows features"],
        guide: Guide,
        options: SamplingOptions,
        uniforms: Float[Tensor, "n numbers"],
    ) -> Int[Tensor, " n"]:
        values, order = uniforms.reshape(-1, 2, self.bits).unbind(1)
        step_of_bit = order.argsort(dim=-1).argsort(dim=-1) * self.steps // self.bits
        copies = len(outputs) // len(values)
        bits = torch.zeros_like(step_of_bit)
        for step in range(self.steps):
            masked = step_of_bit >= step
            logits = self(
                outputs,
                repeat(bits, "b bit -> (copies b) bit", copies=copies),
                repeat(masked, "b bit -> (copies b) bit", copies=copies),
            )
            sampled = sample_bits(guide(logits), options, values)
            bits = torch.where(step_of_bit == step, sampled, bits)
        return from_bits(bits)

    def score(
        self,
        outputs: Float[Tensor, "rows features"],
        guide: Guide,
        codes: Int[Tensor, " n"],
        normalized: bool = True,
    ) -> Float[Tensor, " n"]:
        """As of codes whose bits are all sampled in one step."""
        bits = to_bits(codes, self.bits)
        rows = repeat(bits, "b bit -> (copies b) bit", copies=len(outputs) // len(codes))
        logits = self(outputs, rows, torch.ones_like(rows, dtype=torch.bool))
        return score_of_bits(guide(logits), bits, normalized)

    def _cost(
        self,
        outputs: Float[Tensor, "*n features"],
        bits: Int[Tensor, "*n bits"],
        target: Float[Tensor, "*n bits"] | Int[Tensor, "*n bits"],
        masked: Bool[Tensor, "*n bits"],
        counted: Bool[Tensor, "*_ bits"],
    ) -> Float[Tensor, "*n"]:
        """Cross entropy of the counted bits, given those that are not masked."""
        logits = self(outputs, bits, masked)
        cost = binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
        return (cost * counted).sum(-1)


class BitLayer(nn.Module):
    """Residual feed-forward layer, modulated by the features.

    Args:
        width: channels.
    """

    def __init__(self, width: int):
        super().__init__()
        self.modulation = Modulation(width, 3, gates=1)
        self.fc1 = nn.Linear(width, 2 * width, bias=False)
        self.fc2 = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.fc1.weight, std=0.02)
        nn.init.normal_(self.fc2.weight, std=0.02)

    def forward(
        self, hidden: Float[Tensor, "*n width"], condition: Float[Tensor, "*n width"]
    ) -> Float[Tensor, "*n width"]:
        modulation = self.modulation.linear(silu(condition))
        gate, scale, shift = modulation.chunk(3, dim=-1)
        normalized = rms_norm(hidden, hidden.shape[-1:])
        value, switch = self.fc1(torch.addcmul(shift, normalized, 1 + scale)).chunk(2, dim=-1)
        return hidden + gate * self.fc2(silu(switch) * value)


def sample_bits(
    logits: Float[Tensor, "n bits"], options: SamplingOptions, uniforms: Float[Tensor, "n bits"]
) -> Int[Tensor, "n bits"]:
    """Sample independent bits, each as a code of two values with logits 0 and `logits`."""
    both = torch.stack([torch.zeros_like(logits), logits], dim=-1)
    return sample_from_logits(both.flatten(0, 1), options, uniforms.flatten()).view(logits.shape)


def score_of_bits(
    logits: Float[Tensor, "n bits"], bits: Int[Tensor, "n bits"], normalized: bool
) -> Float[Tensor, " n"]:
    """Log-probability of independent bits, or its part that is no normalizer."""
    if not normalized:
        return (logits * bits).sum(-1)
    return -binary_cross_entropy_with_logits(logits, bits.to(logits.dtype), reduction="none").sum(-1)


class Symbols(ABC):
    """How a prior reads a code, predicts it and samples it. Subclasses are frozen dataclasses."""

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
    def distribution(self, codebook_size: int, width: int) -> Distribution:
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

    def distribution(self, codebook_size: int, width: int) -> Distribution:
        return Categorical()


@dataclass(frozen=True)
class Bits(Symbols):
    """A vector and a logit for each bit; bits are independent given the context (Infinity, arXiv:2412.04431).

    The codebook has 2^n values: that of LFQ and BSQ, whose bits are signs of channels.
    """

    def embedding(self, codebook_size: int, backbone: Backbone, tables: int = 1) -> nn.Embedding:
        return BitEmbedding(count_bits(codebook_size), backbone.width, tables)

    def head(self, embedding: nn.Embedding, table: int = 0, tables: int = 1, bias: bool = False) -> nn.Module:
        return code_head(embedding, table, tables, bias)

    def outputs(self, codebook_size: int, width: int) -> int:
        return count_bits(codebook_size)

    def distribution(self, codebook_size: int, width: int) -> Distribution:
        return IndependentBits(count_bits(codebook_size))


@dataclass(frozen=True)
class MaskedBits(Bits):
    """A vector for each bit; a small network fills in the bits of a code in a few steps (arXiv:2602.09024).

    Bits of a code may then depend on each other. `nats` is an upper bound.

    Args:
        width: channels of the small network.
        depth: layers of the small network.
        steps: sampling steps for the bits of a code; as many as bits if that is less.
        orders: fixed random orders of the bits, over which `nats` is averaged.
    """

    width: int = 256
    depth: int = 2
    steps: int = 4
    orders: int = 1

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.steps, self.orders) < 1:
            raise UserError(
                f"width, depth, steps and orders must be at least 1, got {self.width}, {self.depth}, "
                f"{self.steps} and {self.orders}"
            )

    def head(self, embedding: nn.Embedding, table: int = 0, tables: int = 1, bias: bool = False) -> nn.Module:
        return nn.Identity()

    def outputs(self, codebook_size: int, width: int) -> int:
        return width

    def distribution(self, codebook_size: int, width: int) -> Distribution:
        return MaskedBitDistribution(count_bits(codebook_size), width, self)

    def likelihood(self, kind: str) -> str:
        reasons = kind.removeprefix("exact").removeprefix("upper bound (").removesuffix(")")
        return f"upper bound ({', '.join(filter(None, (reasons, 'bits in a fixed order')))})"


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
