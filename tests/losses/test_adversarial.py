"""Adversarial losses against closed forms in probabilities."""

import math

import pytest
import torch

import genstack.losses
from genstack.discovery import discover
from genstack.losses.adversarial import AdversarialLoss, Hinge, NonSaturating, Vanilla

LOSSES = discover(genstack.losses, AdversarialLoss)
REAL, FAKE = (
    torch.tensor([[-2.0, 0.5, 1.5], [3.0, -0.25, 0.0]]),
    torch.tensor([[-3.0, 0.7, 2.5], [1.0, -0.5, -4.0]]),
)


def grids(*logits):
    return [each[:, None, None] for each in logits]


def probabilities(logits):
    return 1 / (1 + torch.exp(-logits.double()))


@pytest.mark.parametrize("loss", [Vanilla(), NonSaturating()])
def test_discriminator_cross_entropy(loss):
    truth = -(probabilities(REAL).log().mean() + (1 - probabilities(FAKE)).log().mean()) / 2
    assert loss.discriminator(*grids(REAL, FAKE)).item() == pytest.approx(truth.item(), rel=1e-6)


def test_generator_losses():
    (fake,) = grids(FAKE)
    assert NonSaturating().generator(fake).item() == pytest.approx(
        -probabilities(FAKE).log().mean().item(), rel=1e-6
    )
    assert Vanilla().generator(fake) == Hinge().generator(fake) == -FAKE.mean()


@pytest.mark.parametrize(
    ("loss", "worth"), [(Hinge(), 1), (Vanilla(), math.log(2)), (NonSaturating(), math.log(2))]
)
def test_discriminator_loss_at_chance(loss, worth):
    nothing = torch.zeros(3, 1, 5, 7)
    assert loss.discriminator(nothing, nothing).item() == pytest.approx(worth)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_signs_of_both_networks(name):
    """Logits of images up, those of fakes down; the compressor the other way round (a published slip: labels
    and logits exchanged)."""
    loss = LOSSES[name]()
    real, fake = (each.clone().requires_grad_() for each in grids(REAL, FAKE))
    loss.discriminator(real, fake).backward()
    assert (real.grad <= 0).all() and real.grad.sum() < 0
    assert (fake.grad >= 0).all() and fake.grad.sum() > 0
    fake.grad = None
    loss.generator(fake).backward()
    assert (fake.grad < 0).all()
