"""Laws of reconstruction losses."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import genstack.compressor
from genstack.compressor.compressor import Reconstruction
from genstack.compressor.output import Output, Pixels
from genstack.discovery import discover
from genstack.errors import UserError
from genstack.losses.reconstruction import ReconstructionLoss
from genstack.testing.expect import build, check_config, gradients_flow, refusal


@dataclass(frozen=True)
class Judged:
    """A loss and an `Output` of the compressor that it accepts."""

    loss: ReconstructionLoss
    output: Output

    def __call__(self, written: Tensor, images: Tensor) -> Tensor:
        """Compute the loss of a decoder's output."""
        return self.loss.of(Reconstruction(self.output.images(written), None, {}, written), images)

    def decoder_output(self, count: int = 3) -> Tensor:
        """Sample random outputs of a decoder for images of 5 x 7."""
        return torch.randn(count, self.output.width(3), 5, 7)


def make(part: type[ReconstructionLoss], **given: Any) -> Judged:
    """Build the loss and the first `Output` that it accepts."""
    loss = build(part, **given)
    others = discover(genstack.compressor, Output).values()  # type: ignore[type-abstract]
    for output in (Pixels(), *(kind() for kind in others)):
        try:
            loss.check(output)
        except UserError:
            continue
        return Judged(loss, output)
    raise AssertionError("the loss accepts no Output")


def _images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 5, 7) * 2 - 1


def arithmetic_is_float32_under_autocast(judged: Judged) -> None:
    """The loss is a float32 scalar; half-precision reconstructions are converted first."""
    written, images = judged.decoder_output().bfloat16(), _images()
    with torch.autocast("cpu", torch.bfloat16):
        found = judged(written, images)
    assert found.shape == () and found.dtype == torch.float32 and found.isfinite()
    assert found == judged(written.float(), images)


def loss_of_a_batch_is_the_mean_over_images(judged: Judged) -> None:
    """The loss of a batch is the mean of the losses of its images."""
    written, images = judged.decoder_output(), _images()
    each = [judged(written[[index]], images[[index]]) for index in range(3)]
    torch.testing.assert_close(judged(written, images), torch.stack(each).mean())


def gradients_reach_the_decoder(judged: Judged) -> None:
    """Gradients at the decoder's output are finite and not zero."""
    written = judged.decoder_output().requires_grad_()
    judged(written, _images()).backward()
    gradients_flow({"output of the decoder": written})


def the_image_itself_is_best(judged: Judged) -> None:
    """Noisy pixels have a higher loss than the pixels of the image."""
    if not isinstance(judged.output, Pixels):
        return
    images = _images()
    for noise in (0.01, 0.3):
        assert judged(images + noise * torch.randn_like(images), images) > judged(images, images)


def invalid_weights_are_refused(judged: Judged) -> None:
    """Negative and non-finite weights raise a UserError."""
    for weight in (-0.1, float("nan"), float("inf")):
        with refusal(f"weight {weight} is out of range"):
            replace(judged.loss, weight=weight)


def configs_are_values(judged: Judged) -> None:
    """A loss is a frozen dataclass: equal arguments give equal objects."""
    check_config(judged.loss)
