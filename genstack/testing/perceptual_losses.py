"""Laws of perceptual losses."""

from typing import Any

import torch
from torch import Tensor, nn

from genstack.losses.perceptual import Perceptual
from genstack.testing.expect import (
    arguments,
    build,
    check_frozen,
    gradients_flow,
    one_line_or_works,
    refusal,
)

SHAPE = (3, 37, 50)


def make(part: type[Perceptual], **given: Any) -> Perceptual:
    """Build the loss."""
    loss = build(part, **given)
    loss.check(*SHAPE)
    return loss


def _pair(count: int = 2) -> tuple[Tensor, Tensor]:
    """Reconstructions that exceed [-1, 1], as outputs of decoders do, and their images."""
    images = torch.rand(count, *SHAPE) * 2 - 1
    return 1.2 * images.flip(-1) + 0.1, images


def equal_images_have_distance_zero(loss: Perceptual) -> None:
    """Distances of other images are above 0."""
    reconstruction, images = _pair()
    assert not loss.distances(images, images).any()
    assert (loss.distances(reconstruction, images) > 0).all()


def distances_do_not_depend_on_the_batch(loss: Perceptual) -> None:
    """An image has the same distance alone and in a batch; the loss is the mean."""
    reconstruction, images = _pair()
    together = loss.distances(reconstruction, images)
    alone = [loss.distances(reconstruction[[index]], images[[index]]) for index in range(2)]
    torch.testing.assert_close(torch.cat(alone), together, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss(reconstruction, images), together.mean())


def gradients_reach_the_reconstruction(loss: Perceptual) -> None:
    """Gradients are finite, also of equal and of blank images."""
    reconstruction, images = _pair()
    reconstruction.requires_grad_()
    loss(reconstruction, images).backward()
    gradients_flow({"reconstruction": reconstruction})
    for original in (images, torch.zeros_like(images)):
        equal = original.clone().requires_grad_()
        loss(equal, original).backward()
        assert equal.grad is not None and equal.grad.isfinite().all()


def loss_is_float32_under_autocast(loss: Perceptual) -> None:
    """Networks may compute in bfloat16; the loss of a batch is float32, and nearly the same."""
    reconstruction, images = _pair(32)  # rounding changes the distance of two images by up to a sixth
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(reconstruction, images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(reconstruction, images), rtol=0.1, atol=1e-3)


def network_is_frozen_and_no_part_of_modules(loss: Perceptual) -> None:
    """Its network is in no optimizer and no checkpoint, and never trains."""
    module = nn.Module()
    module.loss = loss.to("cpu")  # type: ignore[assignment]
    module.train()
    assert not list(module.parameters()) and not module.state_dict()
    if loss.network is not None:
        check_frozen(loss.network)


def building_keeps_the_random_state(loss: Perceptual) -> None:
    """A training has the same random numbers with and without the loss."""
    before = torch.get_rng_state()
    type(loss)(**arguments(loss)).to("cpu")
    assert torch.equal(torch.get_rng_state(), before)


def images_of_any_shape_work_or_are_refused(loss: Perceptual) -> None:
    """`check` refuses images that the network cannot read, in one line."""
    for channels, height, width in ((1, 40, 40), (2, 40, 40), (4, 40, 40), (3, 1, 1), (3, 15, 64)):

        def distances(shape: tuple[int, int, int] = (channels, height, width)) -> None:
            loss.check(*shape)
            assert loss(torch.zeros(1, *shape), torch.ones(1, *shape)) > 0

        one_line_or_works(distances)


def invalid_weights_are_refused(loss: Perceptual) -> None:
    """The weight is finite and at least 0."""
    for weight in (-0.1, float("nan"), float("inf")):
        with refusal(f"weight {weight} is out of range"):
            type(loss)(**(arguments(loss) | {"weight": weight}))
