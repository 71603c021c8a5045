"""Distances between pixels, and the likelihood of pixels."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import log

from jaxtyping import Float
from torch import Tensor

from genstack.compressor.compressor import Reconstruction
from genstack.compressor.output import LocationAndScale, Output, squeeze
from genstack.errors import UserError
from genstack.losses.weight import check_weight


class ReconstructionLoss(ABC):
    """Distance of reconstructions from their images, a mean over all values; float32 whatever the autocast.

    Calling it gives the distance itself; whoever sums the training loss multiplies by `weight`.
    """

    weight: float

    def check(self, output: Output) -> None:  # noqa: B027 - most losses read images, which all write
        """Refuse decoders that do not write what is read here.

        Raises:
            UserError: the message names the output that does.
        """

    def of(self, reconstruction: Reconstruction, images: Float[Tensor, "b c H W"]) -> Float[Tensor, ""]:
        """The distance of what a compressor made of images."""
        return self(reconstruction.images, images)

    @abstractmethod
    def __call__(
        self, reconstruction: Float[Tensor, "b k H W"], images: Float[Tensor, "b c H W"]
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


@dataclass(frozen=True)
class LogitLaplace(ReconstructionLoss):
    """Negative log-likelihood under the logit-Laplace distribution (DALL-E, arXiv:2102.12092, equation 2).

    In nats per value of images squeezed into [0.1, 0.9]; negative where the decoder is sure. It needs a
    compressor with `output: LocationAndScale`.

    Args:
        weight: of this term in the training loss.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        check_weight(self.weight)

    def check(self, output: Output) -> None:
        if not isinstance(output, LocationAndScale):
            raise UserError(
                f"LogitLaplace reads a location and a scale, and this compressor writes "
                f"{type(output).__name__}; set the compressor's output to LocationAndScale, or use L1 or L2"
            )

    def of(self, reconstruction: Reconstruction, images: Float[Tensor, "b c H W"]) -> Float[Tensor, ""]:
        assert reconstruction.written is not None  # `check` has seen to it
        return self(reconstruction.written, images)

    def __call__(
        self, reconstruction: Float[Tensor, "b k H W"], images: Float[Tensor, "b c H W"]
    ) -> Float[Tensor, ""]:
        location, log_scale = reconstruction.float().chunk(2, dim=1)
        values = squeeze(images.float())
        distance = (values.logit() - location).abs() * (-log_scale).exp()
        return (distance + log_scale + log(2) + (values * (1 - values)).log()).mean()
