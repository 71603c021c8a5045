"""Inputs that laws of conditions read: two classes with captions, images and crops."""

import torch

from genstack.inputs import ConditionInputs

CAPTIONS = ("a low tone", "a high tone")
CROPS = ((0.0, 0.0, 0.5, 0.5), (0.25, 0.5, 1.0, 1.0))


def inputs(count: int) -> ConditionInputs:
    """Low and high in turn, as every kind of input."""
    high = torch.arange(count) % 2
    images = (high * 2 - 1.0)[:, None, None, None] * torch.linspace(-1, 1, 24).expand(count, 3, 16, 24)
    crops = torch.tensor([CROPS[int(each)] for each in high])
    return ConditionInputs(
        high, tuple(CAPTIONS[int(each)] for each in high), images, ("a.png",) * count, crops
    )
