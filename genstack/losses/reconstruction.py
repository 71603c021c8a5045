"""Pixel distances, and the likelihood of pixels."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import log

from jaxtyping import Float
from torch import Tensor

from genstack.compressor.compressor import Reconstruction
from genstack.compressor.output import LocationAndScale, Output, squeeze
from genstack.errors import UserError
from genstack.losses.weight import check_weight

Images = Float[Tensor, "b c H W"]


@dataclass(frozen=True)
class ReconstructionLoss(ABC):
    """Mean distance between reconstructions and images in float32; callers multiply it by `weight`.

    Args:
        weight: weight in the training loss.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        check_weight(self.weight)

    def check(self, output: Output) -> None:  # noqa: B027 - most losses accept every output
        """Raise a UserError if the loss does not support the compressor's output."""

    def of(self, reconstruction: Reconstruction, images: Images) -> Float[Tensor, ""]:
        """Compute the distance between a reconstruction and its images."""
        return self(reconstruction.images, images)

    @abstractmethod
    def __call__(self, reconstruction: Float[Tensor, "b k H W"], images: Images) -> Float[Tensor, ""]: ...


@dataclass(frozen=True)
class L1(ReconstructionLoss):
    """Mean absolute error; sharper edges than L2."""

    def __call__(self, reconstruction: Images, images: Images) -> Float[Tensor, ""]:
        return (reconstruction.float() - images.float()).abs().mean()


@dataclass(frozen=True)
class L2(ReconstructionLoss):
    """Mean squared error, as in PSNR."""

    def __call__(self, reconstruction: Images, images: Images) -> Float[Tensor, ""]:
        return (reconstruction.float() - images.float()).square().mean()


@dataclass(frozen=True)
class LogitLaplace(ReconstructionLoss):
    """Negative log-likelihood under the logit-Laplace distribution (DALL-E, arXiv:2102.12092, equation 2).

    In nats per value of images scaled into [0.1, 0.9]; negative for confident decoders. The compressor needs
    `output: LocationAndScale`.
    """

    def check(self, output: Output) -> None:
        if not isinstance(output, LocationAndScale):
            raise UserError(
                f"LogitLaplace needs output LocationAndScale, got {type(output).__name__}; set the "
                f"compressor's output to LocationAndScale, or use L1 or L2"
            )

    def of(self, reconstruction: Reconstruction, images: Images) -> Float[Tensor, ""]:
        assert reconstruction.decoder_output is not None  # checked by `check`
        return self(reconstruction.decoder_output, images)

    def __call__(self, reconstruction: Float[Tensor, "b k H W"], images: Images) -> Float[Tensor, ""]:
        location, log_scale = reconstruction.float().chunk(2, dim=1)
        values = squeeze(images.float())
        distance = (values.logit() - location).abs() * (-log_scale).exp()
        return (distance + log_scale + log(2) + (values * (1 - values)).log()).mean()
