"""The contract of networks whose features two sets of images are compared in."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class View:
    """What a network sees in images.

    Args:
        features: one vector for each image.
        probabilities: of its classes.
    """

    features: Float[Tensor, "b d"]
    probabilities: Float[Tensor, "b classes"]


class Extractor(ABC):
    """A frozen network, and the names of the numbers that are made of its features.

    A number belongs to its network: those of different ones cannot be compared, and have different names.
    """

    #: Names of the Fréchet distance, the kernel distance and the score.
    distance: ClassVar[str]
    kernel: ClassVar[str]
    score: ClassVar[str]

    @abstractmethod
    def __init__(self, device: torch.device | str):
        """Build the network.

        Raises:
            UserError: its weights are not on this machine; the message says how to get them.
        """

    @property
    @abstractmethod
    def told(self) -> dict[str, Any]:
        """What a card says of it: network, hash of its weights, how images are resized for it."""

    @property
    @final
    def known_as(self) -> str:
        """The network in the names of numbers that have no name of their own for it."""
        return self.kernel.partition("-")[2] or "Inception"

    @property
    @final
    def features(self) -> str:
        """The name of the column that holds its features, from `sets.look`."""
        return f"{self.kernel}/features"

    @abstractmethod
    def __call__(self, images: Float[Tensor, "b c H W"]) -> View:
        """What it sees in images, [-1, 1], rounded as files are."""
