"""R1 of networks with known gradients, and its interval."""

import pytest
import torch
from torch import nn

from genstack.losses.adversary import Adversary
from genstack.losses.diff_augment import DiffAugment
from genstack.losses.gradient_penalty import R1
from genstack.losses.patchgan import PatchGAN


def test_penalty_of_a_quadratic():
    """Logits a x^2 have gradients 2 a x: the penalty is gamma / 2 * 4 a^2 |x|^2; learn a from it."""
    images, slope = torch.randn(3, 2, 4, 5), torch.tensor(0.7, requires_grad=True)
    penalty = R1(weight=6.0, every=1)(lambda x: slope * x.square().sum((1, 2, 3)), images)
    squares = images.square().sum((1, 2, 3)).mean()
    torch.testing.assert_close(penalty, 3 * 4 * slope**2 * squares)
    penalty.backward()
    torch.testing.assert_close(slope.grad, 3 * 8 * 0.7 * squares)


def test_penalty_matches_finite_differences():
    network = PatchGAN(width=4, layers=1).build(1).double()
    image, direction = torch.randn(2, 1, 1, 7, 9, dtype=torch.float64)

    def judge(pixels):
        return network(pixels.double())

    (gradient,) = torch.autograd.grad(judge(image.requires_grad_()).sum(), image)
    step = 1e-5 * direction
    difference = (judge(image + step).sum() - judge(image - step).sum()) / 2e-5
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-4, atol=1e-8)
    found = R1(weight=2.0, every=3)(judge, image)
    torch.testing.assert_close(found.double(), 3 * gradient.square().sum(), rtol=1e-4, atol=1e-12)


def test_lazy_penalty_has_the_same_mean():
    images = torch.randn(2, 3, 8, 12)
    adversary = Adversary(3, PatchGAN(4, 1), penalty=R1(weight=1.0, every=4))
    paid = [adversary.discriminator_loss(images, images, step).losses.get("r1") for step in range(9)]
    assert [step for step, penalty in enumerate(paid) if penalty is not None] == [0, 4, 8]
    each_step = Adversary(3, PatchGAN(4, 1), penalty=R1(weight=1.0, every=1))
    each_step.load_state_dict(adversary.state_dict())
    torch.testing.assert_close(4 * each_step.discriminator_loss(images, images, 1).losses["r1"], paid[0])


def test_penalty_reaches_the_discriminator_only():
    images, made = torch.randn(2, 3, 8, 12), torch.randn(2, 3, 8, 12, requires_grad=True)
    adversary = Adversary(3, PatchGAN(4, 1), penalty=R1(), augmentation=DiffAugment())
    adversary.discriminator_loss(images, made).losses["r1"].backward()
    assert made.grad is None
    convolutions = [part for part in adversary.network if isinstance(part, nn.Conv2d)]
    assert all(convolution.weight.grad.any() for convolution in convolutions)


def test_penalty_is_float32_under_autocast():
    network, images = PatchGAN(4, 1).build(3), torch.randn(2, 3, 8, 12)
    truth = R1()(network, images)
    with torch.autocast("cpu", torch.bfloat16):
        assert R1()(network, images) == truth


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"every": 0}])
def test_invalid_arguments_are_rejected(wrong):
    with pytest.raises(ValueError, match="out of range"):
        R1(**wrong)
