"""Reconstructions of perturbed codes: a forecast of samples without a prior (RobustTok, arXiv:2503.08354).

A prior makes mistakes. If the decoder turns mistakes into implausible images, samples are worse than
reconstructions promise. RobustTok replaces codes by others that are near in the codebook. Here other places
of the same image replace them, which exist for every quantizer, and for latents without codes.
"""

from collections.abc import Sequence

import torch
from einops import rearrange, repeat
from jaxtyping import Int, Shaped
from torch import Tensor

from genstack.layout import CodeLayout, Layout
from genstack.prior import image_seeds
from genstack.prior.logits import uniforms

SEED = 0  # fixed, so that repeated evaluations give equal cards


def perturb(
    values: Shaped[Tensor, "b ..."], layout: Layout, rate: float, indices: Sequence[int]
) -> Shaped[Tensor, "b ..."]:
    """Replace a share of the positions of each grid by other positions of the same grid and image.

    Args:
        values: codes or latents.
        layout: their layout.
        rate: share of the positions, rounded to a whole number.
        indices: index of each image, which seeds the choice.
    """
    grids = layout.split(values) if isinstance(layout, CodeLayout) else [layout.to_grid(values)]
    seeds = image_seeds(SEED, indices)
    found = [perturb_grid(grid, rate, seeds + number) for number, grid in enumerate(grids)]
    return layout.join(found) if isinstance(layout, CodeLayout) else layout.from_grid(found[0])


def perturb_grid(
    grid: Shaped[Tensor, "b h w k"], rate: float, seeds: Int[Tensor, " b"]
) -> Shaped[Tensor, "b h w k"]:
    """Apply `perturb` to one grid."""
    height, width, channels = grid.shape[1:]
    places = rearrange(grid, "b h w k -> b (h w) k")
    count = places.shape[1]
    order, others = uniforms(seeds, 2 * count).to(grid.device).split(count, dim=1)
    replaced = order.argsort(dim=1).argsort(dim=1) < round(rate * count)
    steps = 1 + (others * max(1, count - 1)).long()  # to a position that is not the same
    sources = (torch.arange(count, device=grid.device) + steps) % count
    moved = places.gather(1, repeat(sources, "b n -> b n k", k=channels))
    return rearrange(
        torch.where(replaced[..., None], moved, places), "b (h w) k -> b h w k", h=height, w=width
    )
