"""The contract of frozen networks that see more in images than pixels."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from genstack.errors import UserError


@dataclass
class Seen:
    """What a network sees in images.

    Args:
        maps: features from fine to coarse, one tensor per depth, with sizes of their own.
        pooled: what the classes are read from: one vector for each image.
        logits: of its classes.
    """

    maps: list[Tensor]
    pooled: Float[Tensor, "b d"]
    logits: Float[Tensor, "b classes"]


class Features(ABC):
    """A plan of a trained network that never learns; subclasses are frozen dataclasses of plain values.

    Networks read images in [-1, 1] of 3 channels, give `Seen`, and judge each image alone.
    """

    @property
    @abstractmethod
    def widths(self) -> tuple[int, ...]:
        """Channels of each map."""

    @abstractmethod
    def grids(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Height and width of each map for images of this size."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The network with its true weights, in eval mode, without gradients of its own.

        Raises:
            UserError: the weights are not on this machine.
        """


class Frozen:
    """The network of a plan, built when first used, outside every module tree: no optimizer, no checkpoint.

    Grey images are seen as three equal channels, images of four channels by the first three.

    Args:
        plan: of the network.
    """

    def __init__(self, plan: Features):
        self.plan = plan
        self.network: nn.Module | None = None

    def to(self, device: torch.device | str) -> nn.Module:
        """The network, built unless that has been done, on a device."""
        if self.network is None:
            self.network = self.plan.build()
        return self.network.to(device)

    def __call__(self, images: Float[Tensor, "b c H W"]) -> Seen:
        return self.to(images.device)(colour(images.float()))


def check_channels(channels: int) -> None:
    """Refuse images that `colour` cannot show."""
    if channels not in (1, 3, 4):
        raise UserError(f"trained networks see images of 1, 3 or 4 channels, got {channels}")


def colour(images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b 3 H W"]:
    """Three channels of any number: one repeated, or the first three."""
    return repeat(images, "b 1 H W -> b 3 H W") if images.shape[1] == 1 else images[:, :3]
