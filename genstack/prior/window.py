"""Larger and other-shaped images: a window of codes that slides over a larger grid (arXiv:2012.09841).

What earlier windows have drawn is known in those that overlap them.
"""

from collections.abc import Callable
from itertools import product

import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor

from genstack.errors import UserError
from genstack.inputs import Box
from genstack.layout import CodeLayout
from genstack.prior.options import SamplingOptions
from genstack.prior.prior import Known, Prior
from genstack.prior.sampling import image_seeds


def sample_layout(
    prior: Prior,
    condition: Callable[[Box], Tensor],
    options: SamplingOptions,
    seeds: Int[Tensor, " b"],
    layout: CodeLayout,
    known: Known | None = None,
    overlap: float = 0.5,
) -> Int[Tensor, "b n"]:
    """Codes of images of any size; in the prior's own layout, what `prior.sample` draws.

    A side that is shorter than the window is cut from the middle of it. The window with the most known codes
    is always the next, the first row by row, so that drawing goes outwards from what is given.

    Args:
        prior: over one grid of codes.
        condition: values of its condition for a window, by the window's place in the image; beyond its edges
            where the image is smaller.
        options: how codes are drawn.
        seeds: one for each image.
        layout: of the images to draw, as their compressor says.
        known: codes in this layout that are kept as they are, at the same places in every image.
        overlap: share of the window that lies over the one beside it, from 0 to below 1.

    Raises:
        UserError: codes that do not lie on one grid cannot be drawn through a window.
    """
    if layout == prior.layout:
        return prior.sample(condition((0.0, 0.0, 1.0, 1.0)), options, seeds, known)
    check(prior, layout)
    if not 0 <= overlap < 1:
        raise UserError(f"overlap {overlap} is out of range; it must be at least 0 and below 1")
    window, grid = prior.layout.grids[0], layout.grids[0]
    canvas = (max(window[0], grid[0]), max(window[1], grid[1]))
    top, left = ((whole - side) // 2 for whole, side in zip(canvas, grid, strict=True))
    inner = area((top, left), grid)
    shape = (len(seeds), *canvas, layout.depth)
    codes, done = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
    if known is not None:
        assert (known.mask == known.mask[:1]).all(), "images of one batch share their known places"
        (codes[inner],) = layout.split(known.codes.cpu())
        done[inner] = unflat(known.mask.cpu(), layout)
    rows, columns = (starts(whole, side, overlap) for whole, side in zip(canvas, window, strict=True))
    corners = list(product(rows, columns))
    waiting = [(number, area(corner, window)) for number, corner in enumerate(corners)]
    while waiting:
        number, place = max(waiting, key=lambda entry: int(done[entry[1]].sum()))
        waiting.remove((number, place))
        if not done[place].all():
            given = Known(flat(codes[place]), flat(done[place]))
            values = condition(box(corners[number], window, (top, left), grid))
            drawn = prior.sample(values, options, window_seeds(seeds, number), given)
            (codes[place],) = prior.layout.split(drawn.cpu())
            done[place] = True
    return layout.join([codes[inner]]).to(seeds.device)


def check(prior: Prior, layout: CodeLayout) -> None:
    """Refuse layouts through which no window can slide."""
    height, width = layout.image_size
    if len(prior.layout.grids) > 1:
        raise UserError(
            f"images of {height}x{width} are not what this prior was trained on, and its codes lie on "
            f"{len(prior.layout.grids)} grids, over which no window can slide; "
            f"draw {prior.layout.image_size[0]}x{prior.layout.image_size[1]}, or use a prior over one grid"
        )
    for each in (prior.layout, layout):
        check_places(each, f"draw {prior.layout.image_size[0]}x{prior.layout.image_size[1]}")


def check_places(layout: CodeLayout, instead: str) -> None:
    """Refuse a row of codes that stand for the whole image each (1-D compressors)."""
    (height, width), (rows, columns) = layout.image_size, layout.grids[-1]
    if rows == 1 < columns and height * columns > 2 * width:
        raise UserError(
            f"the {columns} codes of this compressor have no place in the image, "
            f"so that no part of it can be drawn alone; {instead}, or use a compressor with a grid of codes"
        )


def starts(whole: int, side: int, overlap: float) -> list[int]:
    """Where windows of this side begin; the last one ends with the whole."""
    stride = max(1, round(side * (1 - overlap)))
    return [*range(0, whole - side, stride), whole - side]


def area(corner: tuple[int, int], size: tuple[int, int]) -> tuple[slice, slice, slice]:
    """A part of all grids of a batch, by its first row and column and its sides."""
    (top, left), (rows, columns) = corner, size
    return slice(None), slice(top, top + rows), slice(left, left + columns)


def box(
    corner: tuple[int, int], window: tuple[int, int], start: tuple[int, int], grid: tuple[int, int]
) -> Box:
    """Where a window lies in an image, whose grid starts somewhere on the canvas."""
    top, left = ((place - first) / side for place, first, side in zip(corner, start, grid, strict=True))
    return top, left, top + window[0] / grid[0], left + window[1] / grid[1]


def window_seeds(seeds: Int[Tensor, " b"], number: int) -> Int[Tensor, " b"]:
    """Seeds for a window of the images with these seeds; the first window has those of the images."""
    if number == 0:
        return seeds
    return torch.cat([image_seeds(seed % 2**64, [number]) for seed in seeds.tolist()]).to(seeds.device)


def flat(grid: Tensor) -> Tensor:
    """One grid in the order of the flat sequence; `unflat` is the way back."""
    return rearrange(grid, "b h w depth -> b (h w depth)")


def unflat(mask: Bool[Tensor, "b n"], layout: CodeLayout) -> Bool[Tensor, "b h w depth"]:
    """Which places of the one grid of a layout are marked."""
    return rearrange(mask, "b (h w depth) -> b h w depth", h=layout.grids[0][0], depth=layout.depth)
