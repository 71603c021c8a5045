"""Norms that the condition steers (adaLN; Peebles, Xie 2022, arXiv:2212.09748; VAR, arXiv:2404.02905)."""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, rms_norm, silu

EPSILON = 1e-6


def modulated(
    tokens: Float[Tensor, "b n width"],
    scale: Float[Tensor, "b one=1 width"],
    shift: Float[Tensor, "b one=1 width"],
    norm: Literal["rms", "layer"],
) -> Float[Tensor, "b n width"]:
    """Normalised tokens, scaled by 1 + `scale` and shifted."""
    normalize = rms_norm if norm == "rms" else layer_norm
    return torch.addcmul(shift, normalize(tokens, tokens.shape[-1:], eps=EPSILON), 1 + scale)


class Modulation(nn.Module):
    """So many vectors for every image, linear in SiLU of its condition.

    Args:
        width: channels of a token.
        count: number of vectors.
        gates: the first so many begin at 1, so that a layer with them begins as one without.
    """

    def __init__(self, width: int, count: int, gates: int):
        super().__init__()
        self.count, self.gates = count, gates
        self.linear = nn.Linear(width, count * width)
        self.start()

    def start(self) -> None:
        """First weights: small, with open gates."""
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)
        nn.init.ones_(self.linear.bias[: self.gates * self.linear.in_features])

    def forward(self, steering: Float[Tensor, "b width"]) -> Float[Tensor, "b count width"]:
        return rearrange(self.linear(silu(steering)), "b (count width) -> b count width", count=self.count)


class SharedModulation(nn.Module):
    """What one layer adds to the changes that all layers share."""

    def __init__(self, width: int, count: int):
        super().__init__()
        self.offset = nn.Parameter(torch.randn(count, width) * 0.02)

    def forward(self, shared: Float[Tensor, "b count width"]) -> Float[Tensor, "b count width"]:
        return shared + self.offset


class AdaLN(nn.Module):
    """The last norm of a transformer, steered by the condition."""

    def __init__(self, width: int, norm: Literal["rms", "layer"]):
        super().__init__()
        self.norm = norm
        self.changes = Modulation(width, 2, gates=0)

    def forward(
        self, tokens: Float[Tensor, "b n width"], steering: Float[Tensor, "b width"]
    ) -> Float[Tensor, "b n width"]:
        scale, shift = self.changes(steering).split(1, dim=1)
        return modulated(tokens, scale, shift, self.norm)
