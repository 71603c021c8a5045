"""LeCAM in closed form, and updates of its means."""

import pytest
import torch

from genstack.losses.adversary import Adversary
from genstack.losses.lecam import Anchors, LeCAM
from genstack.losses.patchgan import PatchGAN


def logits(*values):
    return torch.tensor(values).reshape(1, 1, 1, -1)


def test_lecam_matches_the_equation_with_clamp():
    anchors = Anchors(LeCAM(weight=0.5))
    anchors.real, anchors.fake, anchors.steps = torch.tensor(1.0), torch.tensor(-1.0), torch.tensor(7)
    real, fake = logits(2.0, -3.0), logits(0.0, 4.0)  # real - fake mean: 3, below; real mean - fake: 1, below
    assert anchors(real, fake) == 0.5 * (9 / 2 + 1 / 2)


def test_lecam_is_zero_before_the_first_step():
    anchors = Anchors(LeCAM(weight=1.0))
    real = logits(5.0).requires_grad_()
    anchors(real, logits(-5.0)).backward()
    assert real.grad == 0
    anchors.after_step(skipped=False)
    assert anchors(logits(5.0), logits(-5.0)) == 100 + 100


def test_means_are_updated_once_per_step():
    anchors = Anchors(LeCAM(decay=0.75))
    steps = [([1.0, 2.0], [6.0]), ([0.0], []), ([4.0], [8.0]), ([2.0], []), ([-8.0], []), ([3.0], [])]
    means = []
    for first, second in steps:
        before = anchors.real.clone()
        for part in filter(None, (first, second)):
            anchors(logits(*part), logits(*[-2 * value for value in part]))
            assert anchors.real == before
        anchors.after_step(skipped=False)
        means.append(sum(first + second) / len(first + second))
    truth, count = 0.0, 0
    for mean in means:
        share = max(1 / (count + 1), 0.25)  # plain means until the decay is slower
        truth, count = truth + share * (mean - truth), count + 1
    assert anchors.real.item() == pytest.approx(truth)
    assert anchors.fake.item() == pytest.approx(-2 * truth)


def test_skipped_step_does_not_change_means():
    anchors = Anchors(LeCAM())
    anchors(logits(float("nan")), logits(1.0))
    anchors.after_step(skipped=True)
    assert (anchors.steps, anchors.real) == (0, 0)
    anchors(logits(2.0), logits(1.0))
    anchors.after_step(skipped=False)
    assert (anchors.steps, anchors.real, anchors.fake) == (1, 2, 1)


def test_lecam_is_saved_and_reaches_the_discriminator_only():
    adversary = Adversary(3, PatchGAN(4, 1), lecam=LeCAM(weight=1.0))
    images, made = torch.randn(2, 3, 8, 12), torch.randn(2, 3, 8, 12, requires_grad=True)
    adversary.discriminator_loss(images, made)
    adversary.after_step(skipped=False)
    saved = adversary.state_dict()
    assert saved["anchors.steps"] == 1 and saved["anchors.real"] != 0
    again = Adversary(3, PatchGAN(4, 1), lecam=LeCAM(weight=1.0))
    again.load_state_dict(saved)
    terms, others = adversary.discriminator_loss(images, made), again.discriminator_loss(images, made)
    assert terms.losses["lecam"] == others.losses["lecam"] > 0
    terms.loss.backward()
    assert made.grad is None and adversary.network[0].weight.grad.any()


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"decay": 1.0}])
def test_invalid_arguments_are_rejected(wrong):
    with pytest.raises(ValueError, match="out of range"):
        LeCAM(**wrong)
