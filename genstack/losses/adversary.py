"""Adversarial training in one backward pass (Esser et al. 2020, arXiv:2012.09841)."""

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
    """Losses and accuracy of the discriminator on a batch.

    Args:
        losses: weighted losses of the discriminator, by name; they have no gradient elsewhere.
        accuracy_real: share of patches of images classified as real.
        accuracy_fake: share of patches of reconstructions classified as fake.
    """

    losses: dict[str, Float[Tensor, ""]]
    accuracy_real: Float[Tensor, ""]
    accuracy_fake: Float[Tensor, ""]

    @property
    def loss(self) -> Float[Tensor, ""]:
        """Sum of the losses."""
        return torch.stack(list(self.losses.values())).sum()


class Adversary(nn.Module):
    """A discriminator, trained from the first step, and an adversarial loss of the compressor from `start`.

    The compressor's term detaches the discriminator's weights, and the discriminator's term detaches the
    reconstruction. Their gradients are disjoint, so one backward pass and one optimizer suffice.

    Args:
        channels: channels of the images; set from the data.
        discriminator: network from images to logits.
        loss: adversarial loss of discriminator and compressor.
        weight: weight of the compressor's adversarial loss, after the ramp.
        start: optimizer steps (`5000`), or share of the run (`"30%"`), before the compressor's loss begins.
        ramp: steps, or share of the run, over which its weight then rises linearly.
        augmentation: DiffAugment, for few images; null for none.
        lecam: LeCAM regularization, for few images; null for none.
        penalty: R1 gradient penalty; null for none.
        adaptive: AdaptiveWeight, which scales `weight` by a ratio of gradients as in VQGAN; null for none.
    """

    latest_penalty: Tensor

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
            self.register_buffer("latest_penalty", torch.tensor(0.0))  # latest penalty, logged in every step
            self.current_penalty: Tensor | None = None  # penalty of the current step

    def augment(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
        """Augment images for the discriminator."""
        return images if self.augmentation is None else self.augmentation(images)

    def generator_loss(self, reconstruction: Float[Tensor, "b {self.channels} H W"]) -> Float[Tensor, ""]:
        """Compute the compressor's adversarial loss; callers multiply it by `generator_weight`."""
        self.discriminator.grid(*reconstruction.shape[-2:])
        frozen = {name: weight.detach() for name, weight in self.network.named_parameters()}
        seen = self.augment(reconstruction)
        return self.loss.generator(functional_call(self.network, frozen, (seen,)).float())

    def adaptive_weight(
        self, distance: Float[Tensor, ""], generator_loss: Float[Tensor, ""], last_layer: nn.Parameter
    ) -> Float[Tensor, ""] | float:
        """Compute the adaptive factor of `generator_weight` from both losses; 1 without AdaptiveWeight."""
        return 1.0 if self.adaptive is None else self.adaptive(distance, generator_loss, last_layer)

    def discriminator_loss(
        self,
        images: Float[Tensor, "b {self.channels} H W"],
        reconstruction: Float[Tensor, "b {self.channels} H W"],
        step: int = 0,
    ) -> AdversarialTerms:
        """Compute losses and accuracy of the discriminator at an optimizer step."""
        self.discriminator.grid(*images.shape[-2:])
        real = self.network(self.augment(images.detach())).float()
        fake = self.network(self.augment(reconstruction.detach())).float()
        losses = {"discriminator": self.loss.discriminator(real, fake)}
        if self.anchors is not None:
            losses["lecam"] = self.anchors(real, fake)
        if self.penalty is not None and self.penalty.due(step):
            losses["r1"] = self.penalty(lambda pixels: self.network(self.augment(pixels)), images)
            self.current_penalty = losses["r1"].detach()
        return AdversarialTerms(
            losses,
            accuracy_real=(real.detach() > 0).float().mean(),
            accuracy_fake=(fake.detach() < 0).float().mean(),
        )

    def after_step(self, skipped: bool) -> None:
        """Update buffers once after each optimizer step."""
        if self.anchors is not None:
            self.anchors.after_step(skipped)
        if self.penalty is not None:
            if self.current_penalty is not None and not skipped:
                self.latest_penalty.copy_(all_reduce_mean(self.current_penalty))
            self.current_penalty = None

    def generator_weight(self, step: int, total: int) -> float:
        """Return the weight of the compressor's adversarial loss at a step of a run of `total` steps."""
        start, ramp = steps(self.start, total), steps(self.ramp, total)
        if step < start:
            return 0.0
        return self.weight * min(1.0, (step - start) / ramp) if ramp else self.weight
