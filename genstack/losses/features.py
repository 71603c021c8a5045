"""Contract of frozen feature extractors."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from genstack.errors import UserError


@dataclass
class ImageFeatures:
    """Features of images.

    Args:
        maps: feature maps from fine to coarse.
        pooled: features before the classification layer, one vector per image.
        logits: logits of the classes; None for a network without classes.
    """

    maps: list[Tensor]
    pooled: Float[Tensor, "b d"]
    logits: Float[Tensor, "b classes"] | None


class Features(ABC):
    """Settings of a frozen network; subclasses are frozen dataclasses of plain values.

    Networks map images in [-1, 1] with 3 channels to `ImageFeatures`; images do not affect each other.
    """

    #: True for a network with classes.
    has_logits: ClassVar[bool] = True

    @property
    @abstractmethod
    def widths(self) -> tuple[int, ...]:
        """Channels of each map."""

    @abstractmethod
    def grids(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Return height and width of each map for images of this size."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Build the network with its trained weights, frozen and in eval mode."""


class Frozen:
    """A frozen network, built at first use, outside module trees, optimizers and checkpoints.

    Grey images get three equal channels; of four channels the first three are used.

    Args:
        config: settings of the network.
    """

    def __init__(self, config: Features):
        self.config = config
        self.network: nn.Module | None = None

    def to(self, device: torch.device | str) -> nn.Module:
        """Build the network if needed, and move it to a device."""
        if self.network is None:
            self.network = self.config.build()
        return self.network.to(device)

    def __call__(self, images: Float[Tensor, "b c H W"]) -> ImageFeatures:
        return self.to(images.device)(colour(images.float()))


def check_channels(channels: int) -> None:
    """Raise a UserError for images that `colour` cannot convert."""
    if channels not in (1, 3, 4):
        raise UserError(f"pretrained networks need images of 1, 3 or 4 channels, got {channels}")


def colour(images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b 3 H W"]:
    """Convert to three channels: repeat one, or take the first three."""
    return repeat(images, "b 1 H W -> b 3 H W") if images.shape[1] == 1 else images[:, :3]
