"""The rules of the adversarial game: what each side wants of the discriminator's logits."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu


class AdversarialLoss(ABC):
    """What each side of the game wants of the discriminator's logits; float32 in, means out."""

    @abstractmethod
    def discriminator(
        self, real: Float[Tensor, "b 1 h w"], fake: Float[Tensor, "b 1 h w"]
    ) -> Float[Tensor, ""]: ...

    @abstractmethod
    def generator(self, fake: Float[Tensor, "b 1 h w"]) -> Float[Tensor, ""]: ...


@dataclass(frozen=True)
class Hinge(AdversarialLoss):
    """Hinge loss (Lim & Ye 2017, arXiv:1705.02894); the discriminator's is 1 while it tells nothing apart."""

    def discriminator(
        self, real: Float[Tensor, "b 1 h w"], fake: Float[Tensor, "b 1 h w"]
    ) -> Float[Tensor, ""]:
        return (relu(1 - real).mean() + relu(1 + fake).mean()) / 2

    def generator(self, fake: Float[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
        return -fake.mean()
