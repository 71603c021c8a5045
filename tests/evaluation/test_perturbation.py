"""Perturbed codes: how many, from where, and alike in every batch."""

import pytest
import torch

from genstack.evaluation.perturbation import perturb
from genstack.layout import CodeLayout, LatentLayout

LAYOUTS = [
    CodeLayout((16, 24), 10_000, ((4, 6),)),
    CodeLayout((16, 24), 10_000, ((2, 3), (4, 6)), depth=2),
    CodeLayout((16, 24), 10_000, ((1, 1), (2, 3))),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rate", [0.25, 0.5, 1.0])
def test_a_share_of_positions_is_replaced_by_others_of_the_same_grid(layout, rate):
    """All codes are different, so each shows where it comes from; symbols of a position move together."""
    codes = torch.stack([torch.arange(layout.length), 5000 + torch.arange(layout.length)])
    found = perturb(codes, layout, rate, [7, 8])
    for before, after in zip(layout.split(codes), layout.split(found), strict=True):
        count = before.shape[1] * before.shape[2]
        changed = (before != after).any(-1).flatten(1).sum(1)
        assert (changed == (round(rate * count) if count > 1 else 0)).all()
        for image in range(2):
            known = {tuple(each) for each in before[image].flatten(0, 1).tolist()}
            assert {tuple(each) for each in after[image].flatten(0, 1).tolist()} <= known


def test_latents_are_perturbed_by_position():
    layout = LatentLayout((16, 24), 3, ((4, 6),))
    latents = torch.randn(2, 3, 4, 6)
    found = perturb(latents, layout, 0.5, [0, 1])
    changed = (found != latents).any(dim=1)
    assert (changed.flatten(1).sum(1) == 12).all() and torch.equal(changed, (found != latents).all(dim=1))


def test_an_image_is_perturbed_alike_in_every_batch():
    layout = LAYOUTS[0]
    codes = torch.randint(10_000, (3, layout.length))
    together = perturb(codes, layout, 0.3, [4, 5, 6])
    alone = [perturb(codes[each : each + 1], layout, 0.3, [4 + each]) for each in range(3)]
    assert torch.equal(together, torch.cat(alone))
    assert not torch.equal(together != codes, (together != codes)[:1].expand(3, -1))
