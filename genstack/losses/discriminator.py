"""The contract of judges of images: a plan, in numbers, of a network from images to logits."""

from abc import ABC, abstractmethod

from torch import nn


class Discriminator(ABC):
    """A plan of a network from images to logits, `b c H W -> b 1 h w`; above 0 it takes them for real.

    Subclasses are frozen dataclasses of plain values. Their networks judge each image alone: no BatchNorm.
    """

    @abstractmethod
    def build(self, channels: int) -> nn.Module:
        """The network for images of so many channels."""

    @abstractmethod
    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the logits of images of this size.

        Raises:
            UserError: images of this size are too small; the message names what would fit.
        """
