"""Laws of adversarial losses."""

from typing import Any

import torch
from torch import Tensor

from genstack.losses.adversarial import AdversarialLoss
from genstack.testing.expect import build, check_config


def make(part: type[AdversarialLoss], **given: Any) -> AdversarialLoss:
    """Build the loss."""
    return build(part, **given)


def _logits() -> Tensor:
    """Logits of a discriminator that is nearly at chance."""
    return (torch.rand(3, 1, 5, 7) - 0.5).requires_grad_()


def losses_are_float32_scalars(loss: AdversarialLoss) -> None:
    """Both losses are means over logits: float32 scalars, the same for a batch that is repeated."""
    real, fake = _logits(), _logits()
    twice = [logits.repeat(2, 1, 1, 1) for logits in (real, fake)]
    for found, again in (
        (loss.discriminator(real, fake), loss.discriminator(*twice)),
        (loss.generator(fake), loss.generator(twice[1])),
    ):
        assert found.shape == () and found.dtype == torch.float32 and found.isfinite()
        torch.testing.assert_close(again, found, rtol=1e-4, atol=1e-6)


def gradients_have_opposite_signs(loss: AdversarialLoss) -> None:
    """Near chance, the discriminator raises logits of images and lowers logits of fakes.

    The compressor raises logits of its fakes.
    """
    real, fake = _logits(), _logits()
    loss.discriminator(real, fake).backward()
    assert real.grad is not None and fake.grad is not None
    assert (real.grad <= 0).all() and real.grad.sum() < 0, "logits of images must rise"
    assert (fake.grad >= 0).all() and fake.grad.sum() > 0, "logits of fakes must fall"
    fake.grad = None
    loss.generator(fake).backward()
    assert fake.grad is not None and (fake.grad < 0).all(), "the compressor must raise logits of fakes"


def large_logits_stay_finite(loss: AdversarialLoss) -> None:
    """Losses and gradients of wrong and certain discriminators are finite."""
    large = torch.full((1, 1, 2, 2), 1e4, requires_grad=True)
    total = loss.discriminator(-large, large) + loss.generator(-large)
    total.backward()
    assert large.grad is not None and total.isfinite() and large.grad.isfinite().all()


def configs_are_values(loss: AdversarialLoss) -> None:
    """A loss is a frozen dataclass: equal arguments make equal losses."""
    check_config(loss)
