"""Conversion of a decoder's output to images: pixels, or parameters of a distribution."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

EPSILON = 0.1  # distance of values from 0 and 1, where logits are infinite


class Output(ABC):
    """Conversion of a decoder's output to images; subclasses are frozen dataclasses of plain values."""

    @abstractmethod
    def width(self, channels: int) -> int:
        """Return the decoder's output channels for images with this number of channels."""

    @abstractmethod
    def images(self, output: Float[Tensor, "b k H W"]) -> Float[Tensor, "b c H W"]:
        """Convert the output to images, not clamped."""


@dataclass(frozen=True)
class Pixels(Output):
    """The output is the image."""

    def width(self, channels: int) -> int:
        return channels

    def images(self, output: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
        return output


@dataclass(frozen=True)
class LocationAndScale(Output):
    """A location and a log scale per value, for the loss `LogitLaplace` (DALL-E, arXiv:2102.12092, A.3).

    Channels of locations precede channels of scales. Locations are logits of images scaled into [0.1, 0.9].
    """

    def width(self, channels: int) -> int:
        return 2 * channels

    def images(self, output: Float[Tensor, "b k H W"]) -> Float[Tensor, "b c H W"]:
        location, _ = output.float().chunk(2, dim=1)
        return expand(location.sigmoid())


def squeeze(images: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Scale images from [-1, 1] to [0.1, 0.9], where logits are small (equation 3)."""
    return (1 - 2 * EPSILON) * (images + 1) / 2 + EPSILON


def expand(squeezed: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Scale images back, the inverse of `squeeze`."""
    return 2 * (squeezed - EPSILON) / (1 - 2 * EPSILON) - 1
