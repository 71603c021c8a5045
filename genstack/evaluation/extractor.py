"""Contract of feature extractors: frozen networks whose features compare two sets of images."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """Output of an extractor for a set of images.

    Args:
        vectors: one feature vector per image.
        probabilities: class probabilities of the network; None without classes.
        spatial: values of an inner layer, for sFID; None if they are not requested.
    """

    vectors: Float[Tensor, "n d"]
    probabilities: Float[Tensor, "n classes"] | None
    spatial: Float[Tensor, "n s"] | None = None


class Extractor(ABC):
    """A frozen network and the names of the metrics computed from its features.

    Metrics of different networks cannot be compared, so they have different names.
    """

    #: Short name of the network, and names of its Fréchet distance, kernel distance and score; the last is
    #: empty for a network without classes. `mmd` names the distance with a Gaussian kernel; empty for none.
    name: ClassVar[str]
    frechet: ClassVar[str]
    kid: ClassVar[str]
    score: ClassVar[str]
    mmd: ClassVar[str] = ""

    @abstractmethod
    def __init__(self, device: torch.device | str):
        """Build the network.

        Raises:
            UserError: the weights are not on this machine; the message says how to get them.
        """

    @property
    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """Network, hash of its weights and resizing, for the metric card."""

    @abstractmethod
    def __call__(self, images: Float[Tensor, "b c H W"]) -> Features:
        """Compute features of images in [-1, 1], rounded as in files."""
