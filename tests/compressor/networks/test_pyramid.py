"""Modules keep their order, on which seeds and optimizer states depend."""

from itertools import pairwise

import pytest
import torch

from genstack.compressor import Convolutional, MAGVITNetwork, MaskGITNetwork

PLANS = {
    "convolutional": Convolutional(6, 8, (1, 2, 3), 1, (1,)),
    "maskgit": MaskGITNetwork(6, 8, (1, 2, 3), 1, "convolution", unit=True),
    "magvit": MAGVITNetwork(6, 8, (1, 2, 3), 1),
}
ORDER = {
    "encoder": ["first", "levels", "downsamples", "middle", "norm", "last"],
    "decoder": ["first", "middle", "adaptive_norms", "levels", "upsamples", "norm", "last"],
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("half", ORDER)
def test_modules_are_built_in_registration_order(plan, half):
    """The layers are initialized in the order of the file, so a seed always gives the same weights."""
    torch.manual_seed(0)
    made = getattr(plan, half)(3)
    assert [name for name, _ in made.named_children()] == ORDER[half]
    first = {name: weight.clone() for name, weight in made.named_parameters()}
    torch.manual_seed(0)
    for module in made.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    for name, weight in made.named_parameters():
        assert torch.equal(weight, first[name]), name


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_channels_match_between_levels(plan):
    """The decoder goes back the way of the encoder, from the width of its coarsest level."""
    assert plan.down[0][0] == plan.width
    for way in (plan.down, plan.up):
        assert all(before[1] == after[0] for before, after in pairwise(way))
    assert tuple(dim for _, dim in plan.down) == tuple(dim for _, dim in plan.up)[::-1] == plan.widths
