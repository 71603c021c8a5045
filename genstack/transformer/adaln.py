"""Adaptive layer norm, modulated by the condition (DiT, arXiv:2212.09748; VAR, arXiv:2404.02905)."""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, rms_norm, silu


def modulate(
    tokens: Float[Tensor, "b n width"],
    scale: Float[Tensor, "b m width"],
    shift: Float[Tensor, "b m width"],
    norm: Literal["rms", "layer"],
    epsilon: float,
) -> Float[Tensor, "b n width"]:
    """Normalize tokens, multiply by 1 + `scale` and add `shift`, of each token or of all."""
    normalize = rms_norm if norm == "rms" else layer_norm
    return torch.addcmul(shift, normalize(tokens, tokens.shape[-1:], eps=epsilon), 1 + scale)


class Modulation(nn.Module):
    """Modulation vectors of each image or token, linear in SiLU of its condition.

    Args:
        width: channels of a token.
        count: number of vectors.
        gates: number of leading vectors that start at 1, so that the layer starts as one without gates.
    """

    def __init__(self, width: int, count: int, gates: int):
        super().__init__()
        self.count, self.gates = count, gates
        self.linear = nn.Linear(width, count * width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize with small weights and open gates."""
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)
        nn.init.ones_(self.linear.bias[: self.gates * self.linear.in_features])

    def forward(self, conditioning: Float[Tensor, "b m width"]) -> Float[Tensor, "b m count width"]:
        return rearrange(
            self.linear(silu(conditioning)), "b m (count width) -> b m count width", count=self.count
        )


class SharedModulation(nn.Module):
    """A layer's learned offset to the modulation that all layers share."""

    def __init__(self, width: int, count: int):
        super().__init__()
        self.offset = nn.Parameter(torch.randn(count, width) * 0.02)

    def forward(self, shared: Float[Tensor, "b m count width"]) -> Float[Tensor, "b m count width"]:
        return shared + self.offset


class AdaLN(nn.Module):
    """The final norm of a transformer, scaled and shifted by the condition."""

    def __init__(self, width: int, norm: Literal["rms", "layer"], epsilon: float):
        super().__init__()
        self.norm, self.epsilon = norm, epsilon
        self.modulation = Modulation(width, 2, gates=0)

    def forward(
        self, tokens: Float[Tensor, "b n width"], conditioning: Float[Tensor, "b m width"]
    ) -> Float[Tensor, "b n width"]:
        scale, shift = self.modulation(conditioning).unbind(dim=2)
        return modulate(tokens, scale, shift, self.norm, self.epsilon)
