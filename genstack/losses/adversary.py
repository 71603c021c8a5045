"""The discriminator's game with the compressor, in one backward (Esser et al. 2020, arXiv:2012.09841)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from genstack.dist import all_reduce_mean
from genstack.losses.adaptive import AdaptiveWeight
from genstack.losses.adversarial import AdversarialLoss, Hinge
from genstack.losses.diff_augment import DiffAugment
from genstack.losses.discriminator import Discriminator
from genstack.losses.gradient_penalty import R1
from genstack.losses.lecam import Anchors, LeCAM
from genstack.losses.patchgan import PatchGAN
from genstack.losses.schedule import percentage, steps
from genstack.losses.weight import check_weight


@dataclass
class AdversarialTerms:
    """What the discriminator makes of a batch.

    Args:
        losses: the discriminator's own, by name, already weighted; they train it and nothing else.
        accuracy_real: share of the patches of images that it takes for real.
        accuracy_fake: share of the patches of reconstructions that it takes for fake.
    """

    losses: dict[str, Float[Tensor, ""]]
    accuracy_real: Float[Tensor, ""]
    accuracy_fake: Float[Tensor, ""]

    @property
    def loss(self) -> Float[Tensor, ""]:
        """Their sum."""
        return torch.stack(list(self.losses.values())).sum()


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
        augmentation: DiffAugment varies all that is judged, which helps where images are few; null for none.
        lecam: LeCAM holds the discriminator's logits back, which helps where images are few; null for none.
        penalty: R1 keeps the discriminator flat around images; null for none.
        adaptive: AdaptiveWeight multiplies `weight` by what makes the adversary pull as strongly as pixels
            and perceptual distance do, as VQGAN did; null leaves it as it is.
    """

    paid: Tensor

    def __init__(
        self,
        channels: int,
        discriminator: Discriminator = PatchGAN(),
        loss: AdversarialLoss = Hinge(),
        weight: float = 0.1,
        start: int | str = 0,
        ramp: int | str = 0,
        augmentation: DiffAugment | None = None,
        lecam: LeCAM | None = None,
        penalty: R1 | None = None,
        adaptive: AdaptiveWeight | None = None,
    ):
        super().__init__()
        check_weight(weight)
        percentage(start), percentage(ramp)
        self.channels, self.discriminator, self.loss = channels, discriminator, loss
        self.weight, self.start, self.ramp = weight, start, ramp
        self.augmentation, self.lecam, self.penalty, self.adaptive = augmentation, lecam, penalty, adaptive
        self.network = discriminator.build(channels)
        self.anchors = None if lecam is None else Anchors(lecam)
        if penalty is not None:
            self.register_buffer("paid", torch.tensor(0.0))  # the latest penalty, for the steps without
            self.due: Tensor | None = None  # that of the step at hand

    def varied(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
        """Images as the discriminator gets to see them."""
        return images if self.augmentation is None else self.augmentation(images)

    def generator_loss(self, reconstruction: Float[Tensor, "b {self.channels} H W"]) -> Float[Tensor, ""]:
        """The compressor's adversarial term, not yet weighted; multiply by `push`."""
        self.discriminator.grid(*reconstruction.shape[-2:])
        frozen = {name: weight.detach() for name, weight in self.network.named_parameters()}
        seen = self.varied(reconstruction)
        return self.loss.generator(functional_call(self.network, frozen, (seen,)).float())

    def balance(
        self, closeness: Float[Tensor, ""], pushed: Float[Tensor, ""], last_layer: nn.Parameter
    ) -> Float[Tensor, ""] | float:
        """What `push` is multiplied by, given what the compressor's other terms are and its own one is."""
        return 1.0 if self.adaptive is None else self.adaptive(closeness, pushed, last_layer)

    def discriminator_loss(
        self,
        images: Float[Tensor, "b {self.channels} H W"],
        reconstruction: Float[Tensor, "b {self.channels} H W"],
        step: int = 0,
    ) -> AdversarialTerms:
        """The discriminator's terms at an optimizer step, and how well it tells the two apart."""
        self.discriminator.grid(*images.shape[-2:])
        real = self.network(self.varied(images.detach())).float()
        fake = self.network(self.varied(reconstruction.detach())).float()
        losses = {"discriminator": self.loss.discriminator(real, fake)}
        if self.anchors is not None:
            losses["lecam"] = self.anchors(real, fake)
        if self.penalty is not None and self.penalty.due(step):
            losses["r1"] = self.penalty(lambda pixels: self.network(self.varied(pixels)), images)
            self.due = losses["r1"].detach()
        return AdversarialTerms(
            losses,
            accuracy_real=(real.detach() > 0).float().mean(),
            accuracy_fake=(fake.detach() < 0).float().mean(),
        )

    def after_step(self, skipped: bool) -> None:
        """Called once after each optimizer step."""
        if self.anchors is not None:
            self.anchors.after_step(skipped)
        if self.penalty is not None:
            if self.due is not None and not skipped:
                self.paid.copy_(all_reduce_mean(self.due))
            self.due = None

    def push(self, step: int, total: int) -> float:
        """The weight of the compressor's term at an optimizer step, in a run of `total` steps."""
        start, ramp = steps(self.start, total), steps(self.ramp, total)
        if step < start:
            return 0.0
        return self.weight * min(1.0, (step - start) / ramp) if ramp else self.weight
