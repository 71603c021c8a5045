"""Contract of classifiers that a user provides to check the classes of samples."""

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor


class Classifier(ABC):
    """Predict one class per image."""

    #: Class names in the order of the predicted labels.
    classes: tuple[str, ...]

    @property
    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """Origin, hash and resizing, for the metric card."""

    @abstractmethod
    def __call__(self, images: Float[Tensor, "b c H W"]) -> Int[Tensor, " b"]:
        """Predict the label of each image in [-1, 1], rounded as in files."""
