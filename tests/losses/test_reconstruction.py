"""Pixel distances against numpy in float64."""

import numpy as np
import pytest
import torch

import genstack.losses
from genstack.discovery import discover
from genstack.losses.reconstruction import L1, L2, ReconstructionLoss

LOSSES = discover(genstack.losses, ReconstructionLoss)
TRUTH = {"L1": lambda difference: np.abs(difference).mean(), "L2": lambda difference: (difference**2).mean()}


@pytest.mark.parametrize("name", TRUTH)
def test_is_the_mean_over_all_values(name):
    reconstruction, images = torch.randn(2, 3, 3, 5, 7).unbind()
    found = LOSSES[name]()(reconstruction, images)
    assert found.item() == pytest.approx(
        TRUTH[name]((reconstruction.double() - images.double()).numpy()), rel=1e-6
    )


@pytest.mark.parametrize("name", LOSSES)
def test_reduces_in_float32_under_autocast(name):
    images = torch.rand(2, 3, 16, 17)
    with torch.autocast("cpu", torch.bfloat16):
        halved = LOSSES[name]()(images.bfloat16(), images)
    assert halved.dtype == torch.float32
    assert halved == LOSSES[name]()(images.bfloat16().float(), images)


@pytest.mark.parametrize("loss", [L1, L2])
@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_refuses_weights_that_make_no_sense(loss, weight):
    with pytest.raises(ValueError, match=f"weight {weight} is out of range"):
        loss(weight)
