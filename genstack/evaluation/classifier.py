"""The contract of what reads classes in images: a network that a user gives, or pictures of each class."""

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor


class Classifier(ABC):
    """Reads one class in each image."""

    #: Names of the classes that it can read, in the order of its numbers.
    classes: tuple[str, ...]

    @property
    @abstractmethod
    def told(self) -> dict[str, Any]:
        """What a card says of it: where it comes from, hash, how images are resized for it."""

    @abstractmethod
    def __call__(self, images: Float[Tensor, "b c H W"]) -> Int[Tensor, " b"]:
        """The number of the class in each image, [-1, 1], rounded as files are."""
