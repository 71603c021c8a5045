"""Meaning of a decoder's last layer: pixels, or the parameters of a distribution over them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

EPSILON = 0.1  # distance that values keep from 0 and 1, where logits end


class Output(ABC):
    """A plan of how a decoder writes images; subclasses are frozen dataclasses of plain values."""

    @abstractmethod
    def width(self, channels: int) -> int:
        """Channels that the decoder writes for images of so many channels."""

    @abstractmethod
    def images(self, written: Float[Tensor, "b k H W"]) -> Float[Tensor, "b c H W"]:
        """The images that are meant, not clamped."""


@dataclass(frozen=True)
class Pixels(Output):
    """The decoder writes images as they are."""

    def width(self, channels: int) -> int:
        return channels

    def images(self, written: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
        return written


@dataclass(frozen=True)
class LocationAndScale(Output):
    """A location and a log scale for each value, which `LogitLaplace` trains (DALL-E, arXiv:2102.12092, A.3).

    The locations, all before the scales, are logits of images squeezed into [0.1, 0.9].
    """

    def width(self, channels: int) -> int:
        return 2 * channels

    def images(self, written: Float[Tensor, "b k H W"]) -> Float[Tensor, "b c H W"]:
        location, _ = written.float().chunk(2, dim=1)
        return expand(location.sigmoid())


def squeeze(images: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Images in [-1, 1] to [0.1, 0.9], whose logits are small; equation 3."""
    return (1 - 2 * EPSILON) * (images + 1) / 2 + EPSILON


def expand(squeezed: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The way back from `squeeze`."""
    return 2 * (squeezed - EPSILON) / (1 - 2 * EPSILON) - 1
