"""Laws of frozen networks whose features losses and discriminators compare."""

from typing import Any

import torch
from torch import Tensor

from genstack.losses.features import Features, ImageFeatures
from genstack.testing.expect import build, check_config, check_frozen, gradients_flow, one_line_or_works

SIZES = ((64, 64), (61, 47))


def make(part: type[Features], **given: Any) -> Features:
    """Build the settings."""
    return build(part, **given)


def _tensors(seen: ImageFeatures) -> list[Tensor]:
    """List all features of images: maps, pooled features, and logits if there are any."""
    return [*seen.maps, seen.pooled, *([] if seen.logits is None else [seen.logits])]


def maps_have_the_widths_and_grids(features: Features) -> None:
    """Maps have the shapes of `widths` and `grids`; each image has one row of pooled features."""
    network = features.build()
    for size in SIZES:
        seen = network(torch.rand(2, 3, *size) * 2 - 1)
        assert tuple(tuple(found.shape[-2:]) for found in seen.maps) == tuple(features.grids(*size))
        assert tuple(found.shape[1] for found in seen.maps) == tuple(features.widths)
        assert len(seen.pooled) == 2 and (seen.logits is not None) == features.has_logits


def images_do_not_affect_each_other(features: Features) -> None:
    """An image has the same features alone and in a batch."""
    network, images = features.build(), torch.rand(2, 3, *SIZES[1]) * 2 - 1
    together, alone = network(images), [network(image) for image in images.split(1)]
    parts = zip(*map(_tensors, alone), strict=True)
    for found, apart in zip(_tensors(together), parts, strict=True):
        torch.testing.assert_close(torch.cat(apart), found, rtol=1e-3, atol=1e-4)


def gradients_reach_the_images(features: Features) -> None:
    """Gradients of the features reach the images."""
    images = (torch.rand(2, 3, 64, 64) * 2 - 1).requires_grad_()
    seen = features.build()(images)
    torch.stack([part.square().sum() for part in _tensors(seen)]).sum().backward()
    gradients_flow({"images": images})


def network_is_frozen(features: Features) -> None:
    """The network has weights, requires no gradients, and is in eval mode."""
    check_frozen(features.build())


def building_keeps_the_random_state(features: Features) -> None:
    """Building the network draws no random numbers."""
    before = torch.get_rng_state()
    features.build()
    assert torch.equal(torch.get_rng_state(), before)


def too_small_images_are_refused(features: Features) -> None:
    """Images of any size either have features or raise a UserError of one line."""
    for size in ((1, 1), (7, 64)):

        def maps(size: tuple[int, int] = size) -> None:
            grids = features.grids(*size)
            assert len(features.build()(torch.zeros(1, 3, *size)).maps) == len(grids)

        one_line_or_works(maps)


def configs_are_values(features: Features) -> None:
    """Features are a frozen dataclass: equal arguments give equal objects."""
    check_config(features)
