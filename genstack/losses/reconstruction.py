"""Distances between pixels."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from genstack.losses.weight import check_weight


class ReconstructionLoss(ABC):
    """Distance of reconstructions from their images, a mean over all values; float32 whatever the autocast.

    Calling it gives the distance itself; whoever sums the training loss multiplies by `weight`.
    """

    weight: float

    @abstractmethod
    def __call__(
        self, reconstruction: Float[Tensor, "b c H W"], images: Float[Tensor, "b c H W"]
    ) -> Float[Tensor, ""]: ...


@dataclass(frozen=True)
class L1(ReconstructionLoss):
    """Mean absolute error; edges stay sharper than under L2.

    Args:
        weight: of this term in the training loss.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        check_weight(self.weight)

    def __call__(
        self, reconstruction: Float[Tensor, "b c H W"], images: Float[Tensor, "b c H W"]
    ) -> Float[Tensor, ""]:
        return (reconstruction.float() - images.float()).abs().mean()


@dataclass(frozen=True)
class L2(ReconstructionLoss):
    """Mean squared error; what PSNR measures.

    Args:
        weight: of this term in the training loss.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        check_weight(self.weight)

    def __call__(
        self, reconstruction: Float[Tensor, "b c H W"], images: Float[Tensor, "b c H W"]
    ) -> Float[Tensor, ""]:
        return (reconstruction.float() - images.float()).square().mean()
