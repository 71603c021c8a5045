"""The discriminator's game with the compressor, in one backward (Esser et al. 2020, arXiv:2012.09841)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from genstack.losses.adversarial import AdversarialLoss, Hinge
from genstack.losses.discriminator import Discriminator
from genstack.losses.patchgan import PatchGAN
from genstack.losses.schedule import percentage, steps
from genstack.losses.weight import check_weight


@dataclass
class AdversarialTerms:
    """What the discriminator makes of a batch.

    Args:
        loss: the discriminator's own; trains it and nothing else.
        accuracy_real: share of the patches of images that it takes for real.
        accuracy_fake: share of the patches of reconstructions that it takes for fake.
    """

    loss: Float[Tensor, ""]
    accuracy_real: Float[Tensor, ""]
    accuracy_fake: Float[Tensor, ""]


class Adversary(nn.Module):
    """A discriminator that learns from the first step on, and pushes the compressor from `start` on.

    The compressor's term sees the discriminator's weights detached, the discriminator's term sees the
    reconstruction detached: the two reach disjoint parameters, so that their sum takes one backward pass and
    one optimizer.

    Args:
        channels: channels of the images; set from the data.
        discriminator: the plan of the network that judges images.
        loss: the rules of the game.
        weight: of the compressor's adversarial term in the training loss, once the ramp is over.
        start: when the discriminator begins to push the compressor, in optimizer steps (`5000`) or as a share
            of the run (`"30%"`).
        ramp: over how long the push then grows linearly from 0 to `weight`, likewise.
    """

    def __init__(
        self,
        channels: int,
        discriminator: Discriminator = PatchGAN(),
        loss: AdversarialLoss = Hinge(),
        weight: float = 0.1,
        start: int | str = 0,
        ramp: int | str = 0,
    ):
        super().__init__()
        check_weight(weight)
        percentage(start), percentage(ramp)
        self.channels, self.discriminator, self.loss = channels, discriminator, loss
        self.weight, self.start, self.ramp = weight, start, ramp
        self.network = discriminator.build(channels)

    def generator_loss(self, reconstruction: Float[Tensor, "b {self.channels} H W"]) -> Float[Tensor, ""]:
        """The compressor's adversarial term, not yet weighted; multiply by `push`."""
        self.discriminator.grid(*reconstruction.shape[-2:])
        frozen = {name: weight.detach() for name, weight in self.network.named_parameters()}
        return self.loss.generator(functional_call(self.network, frozen, (reconstruction,)).float())

    def discriminator_loss(
        self,
        images: Float[Tensor, "b {self.channels} H W"],
        reconstruction: Float[Tensor, "b {self.channels} H W"],
    ) -> AdversarialTerms:
        """The discriminator's term, and how well it tells images from reconstructions."""
        self.discriminator.grid(*images.shape[-2:])
        real = self.network(images.detach()).float()
        fake = self.network(reconstruction.detach()).float()
        return AdversarialTerms(
            self.loss.discriminator(real, fake),
            accuracy_real=(real.detach() > 0).float().mean(),
            accuracy_fake=(fake.detach() < 0).float().mean(),
        )

    def push(self, step: int, total: int) -> float:
        """The weight of the compressor's term at an optimizer step, in a run of `total` steps."""
        start, ramp = steps(self.start, total), steps(self.ramp, total)
        if step < start:
            return 0.0
        return self.weight * min(1.0, (step - start) / ramp) if ramp else self.weight
