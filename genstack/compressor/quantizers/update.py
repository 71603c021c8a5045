"""Update rules of codebooks (VQ-VAE, arXiv:1711.00937: equation 3, and appendix A.1)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from genstack.compressor.quantizers.check import check
from genstack.compressor.quantizers.codebook import Codebook, CodebookInit


class CodebookUpdate(ABC):
    """Update rule of a codebook."""

    @abstractmethod
    def codebook(
        self, size: int, dim: int, codebook_init: CodebookInit | None, dead_after: float | None
    ) -> Codebook:
        """Build a codebook with this rule; see `Codebook`."""

    @abstractmethod
    def losses(
        self, hard: Float[Tensor, "*shape"], soft: Float[Tensor, "*shape"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the loss terms that pull chosen rows to their latents."""


@dataclass(frozen=True)
class GradientUpdate(CodebookUpdate):
    """Rows are weights, pulled to the latents that chose them by a loss term.

    Args:
        weight: weight of the loss term.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        check("codebook weight", self.weight, self.weight >= 0, "0 or more")

    def codebook(
        self, size: int, dim: int, codebook_init: CodebookInit | None, dead_after: float | None
    ) -> Codebook:
        return Codebook(size, dim, codebook_init, dead_after)

    def losses(
        self, hard: Float[Tensor, "*shape"], soft: Float[Tensor, "*shape"]
    ) -> dict[str, Float[Tensor, ""]]:
        return {"codebook": self.weight * F.mse_loss(hard, soft.detach())}


@dataclass(frozen=True)
class EMAUpdate(CodebookUpdate):
    """Rows are exponential moving averages of the latents that chose them, without an optimizer.

    Args:
        decay: decay of the averages per optimizer step; 0.99 is steady, 0.8 follows a fast encoder.
    """

    decay: float = 0.99

    def __post_init__(self) -> None:
        check("decay", self.decay, 0 <= self.decay < 1, "0 or more and less than 1")

    def codebook(
        self, size: int, dim: int, codebook_init: CodebookInit | None, dead_after: float | None
    ) -> Codebook:
        return Codebook(size, dim, codebook_init, dead_after, self.decay)

    def losses(
        self, hard: Float[Tensor, "*shape"], soft: Float[Tensor, "*shape"]
    ) -> dict[str, Float[Tensor, ""]]:
        return {}
