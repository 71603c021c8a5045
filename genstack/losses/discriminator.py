"""Contract of discriminators: the settings of a network from images to logits."""

from abc import ABC, abstractmethod

from torch import nn


class Discriminator(ABC):
    """Settings of a network from images to logits, `b c H W -> b 1 h w`; above 0 is real.

    Subclasses are frozen dataclasses of plain values. Images do not affect each other: no BatchNorm.
    """

    @abstractmethod
    def build(self, channels: int) -> nn.Module:
        """Build the network for images with this number of channels."""

    @abstractmethod
    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the logits for images of this size; too small ones are an error."""
