"""Bits of a code, filled in over a few steps so they may depend on each other (BAR, arXiv:2602.09024)."""

from dataclasses import dataclass

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, rms_norm, silu

from genstack.errors import UserError
from genstack.prior.options import SamplingOptions
from genstack.prior.symbols import Bits, Distribution, Guide, count_bits, sample_bits, score_of_bits
from genstack.transformer.adaln import Modulation
from genstack.transformer.backbone import Backbone
from genstack.transformer.head import from_bits, to_bits


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

    def distribution(self, codebook_size: int, backbone: Backbone) -> Distribution:
        return MaskedBitDistribution(count_bits(codebook_size), backbone.width, self)

    def likelihood(self, kind: str) -> str:
        reasons = kind.removeprefix("exact").removeprefix("upper bound (").removesuffix(")")
        return f"upper bound ({', '.join(filter(None, (reasons, 'bits in a fixed order')))})"


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

    def __init__(self, bits: int, features: int, plan: MaskedBits):
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
        """Logits of all bits given the unmasked bits, in float32."""
        known = (~masked).to(features.dtype)
        condition = self.condition(features)
        hidden = condition + self.embedding(torch.cat([(bits * 2 - 1) * known, known], dim=-1))
        for layer in self.layers:
            hidden = layer(hidden, condition)
        return self.head(self.norm(hidden.float())).float()

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
        """Cross entropy of the counted bits, given the unmasked bits."""
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
