"""Adversarial training: gradients as with two optimizers, the ramp, and the command line."""

from collections.abc import Callable

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from genstack.losses.adversarial import Hinge
from genstack.losses.adversary import Adversary
from genstack.losses.patchgan import PatchGAN

PUSH = 0.7


@pytest.fixture
def images():
    return torch.randn(2, 3, 12, 18, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def generator():
    torch.manual_seed(2)
    return nn.Conv2d(3, 3, 3, padding=1)


@pytest.fixture
def adversary():
    torch.manual_seed(3)
    return Adversary(3, PatchGAN(width=8, layers=2), weight=PUSH)


def moves(gradients: list[torch.Tensor | None]) -> bool:
    """Every convolution learns (the last bias need not: hinge pulls it both ways by the same amount)."""
    return all(gradient.any() for gradient in gradients if gradient.ndim == 4)


def gradients(module: nn.Module) -> list[torch.Tensor | None]:
    found = [parameter.grad for parameter in module.parameters()]
    module.zero_grad()
    return found


def test_one_backward_equals_two_backwards(images, generator, adversary):
    reconstruction = generator(images)
    joint = PUSH * adversary.generator_loss(reconstruction)
    (joint + adversary.discriminator_loss(images, reconstruction).loss).backward()
    compressor, discriminator = gradients(generator), gradients(adversary)

    adversary.requires_grad_(False)
    (-PUSH * adversary.network(generator(images)).mean()).backward()
    adversary.requires_grad_(True)
    torch.testing.assert_close(compressor, gradients(generator))

    with torch.no_grad():
        fake = generator(images)
    real, fake = adversary.network(images), adversary.network(fake)
    (0.5 * ((1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean())).backward()
    torch.testing.assert_close(discriminator, gradients(adversary))
    assert moves([*compressor, *discriminator])


def test_one_backward_equals_two_backwards_under_autocast(images, generator, adversary):
    with torch.autocast("cpu", torch.bfloat16):
        reconstruction = generator(images)
        pushed = adversary.generator_loss(reconstruction)
        judged = adversary.discriminator_loss(images, reconstruction).loss
    assert pushed.dtype == judged.dtype == torch.float32
    (pushed + judged).backward()
    discriminator = gradients(adversary)
    with torch.autocast("cpu", torch.bfloat16):
        alone = adversary.discriminator_loss(images, generator(images)).loss
    alone.backward()
    torch.testing.assert_close(discriminator, gradients(adversary))
    assert moves(discriminator)


def test_each_term_reaches_one_network_only(images, generator, adversary):
    adversary.generator_loss(generator(images)).backward()
    assert gradients(adversary) == [None] * len(list(adversary.parameters()))
    assert moves(gradients(generator))
    adversary.discriminator_loss(images, generator(images)).loss.backward()
    assert gradients(generator) == [None, None]
    assert moves(gradients(adversary))


def test_hinge_at_chance_is_one():
    logits = torch.zeros(3, 1, 5, 7)
    assert Hinge().discriminator(logits, logits) == 1
    assert Hinge().generator(logits) == 0


def test_hinge_in_closed_form():
    real = torch.tensor([-2.0, 0.5, 1.0, 4.0]).reshape(1, 1, 2, 2)  # 1 - real: 3, 0.5, 0, and none of -3
    fake = torch.tensor([-3.0, -1.0, 0.25, 2.0]).reshape(1, 1, 2, 2)  # 1 + fake: none of -2, 0, 1.25, 3
    assert Hinge().discriminator(real, fake) == (3.5 / 4 + 4.25 / 4) / 2
    assert Hinge().generator(fake) == 1.75 / 4


def test_accuracy_counts_patches(images, adversary):
    class Brightness(nn.Module):
        def forward(self, images):
            return images[:, :1]

    adversary.network = Brightness()
    dark = images.clone()
    dark[:, 0], images[:, 0] = -1, 1
    images[:, 0, :3] = -1  # a quarter of the 12 rows
    terms = adversary.discriminator_loss(images, dark)
    assert (terms.accuracy_real, terms.accuracy_fake) == (0.75, 1)


@pytest.mark.parametrize(
    ("start", "ramp", "pushes"),
    [
        (0, 0, {0: 1, 1: 1, 99: 1}),
        (10, 0, {0: 0, 9: 0, 10: 1, 99: 1}),
        (10, 20, {0: 0, 10: 0, 15: 0.25, 20: 0.5, 29: 0.95, 30: 1, 99: 1}),
        ("30%", "20%", {0: 0, 29: 0, 30: 0, 40: 0.5, 50: 1, 99: 1}),
        (0, "50%", {0: 0, 25: 0.5, 50: 1}),
    ],
)
def test_push_starts_and_ramps(start, ramp, pushes):
    adversary = Adversary(1, PatchGAN(width=2, layers=1), weight=PUSH, start=start, ramp=ramp)
    for step, share in pushes.items():
        assert adversary.generator_weight(step, 100) == pytest.approx(PUSH * share, abs=1e-12)


@pytest.mark.parametrize("wrong", [{"start": "soon"}, {"ramp": -3}, {"weight": -1.0}])
def test_invalid_adversary_is_rejected(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        Adversary(3, PatchGAN(width=2, layers=1), **wrong)


def test_small_images_are_rejected(adversary):
    with pytest.raises(ValueError, match="use layers 1 or larger images"):
        adversary.discriminator_loss(torch.zeros(1, 3, 8, 20), torch.zeros(1, 3, 8, 20))


class Host:
    def __init__(self, adversary: Callable[[int], Adversary] | None = None):
        self.adversary = adversary


def test_adversary_round_trips_through_the_command_line():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Host, "model")
    chosen = ["=Adversary", ".discriminator=PatchGAN", ".discriminator.layers=2", ".weight=0.2", ".start=30%"]
    config = parser.parse_args([f"--model.adversary{choice}" for choice in chosen])
    again = parser.parse_string(parser.dump(config))
    for each in (config, again):
        adversary = parser.instantiate(each).model.adversary(4)
        assert adversary.discriminator == PatchGAN(layers=2)
        assert (adversary.channels, adversary.weight, adversary.start, adversary.ramp) == (4, 0.2, "30%", 0)
        assert adversary.loss == Hinge()
    assert parser.instantiate(parser.parse_args([])).model.adversary is None
