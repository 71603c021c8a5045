"""Adversarial losses of discriminator and compressor, from the discriminator's logits."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu, softplus

Logits = Float[Tensor, "b 1 h w"]
Loss = Float[Tensor, ""]


class AdversarialLoss(ABC):
    """Losses of both networks, means over float32 logits."""

    @abstractmethod
    def discriminator(self, real: Logits, fake: Logits) -> Loss: ...

    @abstractmethod
    def generator(self, fake: Logits) -> Loss: ...


@dataclass(frozen=True)
class Hinge(AdversarialLoss):
    """Hinge loss (Lim & Ye 2017, arXiv:1705.02894); the discriminator's is 1 at chance."""

    def discriminator(self, real: Logits, fake: Logits) -> Loss:
        return (relu(1 - real).mean() + relu(1 + fake).mean()) / 2

    def generator(self, fake: Logits) -> Loss:
        return -fake.mean()


@dataclass(frozen=True)
class Vanilla(AdversarialLoss):
    """Cross-entropy for the discriminator, the mean logit for the compressor ("vanilla" in VQGAN's code).

    The discriminator's loss is log 2, about 0.69, at chance.
    """

    def discriminator(self, real: Logits, fake: Logits) -> Loss:
        return cross_entropy(real, fake)

    def generator(self, fake: Logits) -> Loss:
        return -fake.mean()


@dataclass(frozen=True)
class NonSaturating(AdversarialLoss):
    """Cross-entropy for both, with flipped labels for the compressor (Goodfellow 2014, arXiv:1406.2661).

    The discriminator's loss is log 2, about 0.69, at chance.
    """

    def discriminator(self, real: Logits, fake: Logits) -> Loss:
        return cross_entropy(real, fake)

    def generator(self, fake: Logits) -> Loss:
        return softplus(-fake).mean()


def cross_entropy(real: Logits, fake: Logits) -> Loss:
    """Average -log D(real) and -log(1 - D(fake)); D is the sigmoid of the logit."""
    return (softplus(-real).mean() + softplus(fake).mean()) / 2
