"""Images of other sizes: a window slides over a larger grid (Esser et al. 2021, arXiv:2012.09841).

Codes or latents that earlier windows have sampled are known to windows that overlap them.
"""

from collections.abc import Callable
from functools import partial
from itertools import product

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from genstack.errors import UserError
from genstack.inputs import Box
from genstack.layout import Layout
from genstack.prior.known import Known
from genstack.prior.logits import image_seeds
from genstack.prior.options import SamplingOptions
from genstack.prior.prior import Prior


def sample_layout(
    prior: Prior,
    condition: Callable[[Box], Tensor],
    options: SamplingOptions,
    seeds: Int[Tensor, " b"],
    layout: Layout,
    known: Known | None = None,
    overlap: float = 0.5,
    report: Callable[[float], None] = lambda progress: None,
) -> Shaped[Tensor, "b ..."]:
    """Sample codes or latents of images of any size; in the prior's own layout, this is `prior.sample`.

    A side shorter than the window is cut from the window's middle. The window with the most known codes comes
    next, ties in raster order, so sampling proceeds outwards from what is known.

    Args:
        prior: a prior over one grid.
        condition: gives the condition's values for a window, by its box in the image. The box exceeds the
            image where the image is smaller.
        options: sampling options.
        seeds: one per image.
        layout: layout of the images, from their compressor.
        known: values that are kept, in this layout; the same positions in every image.
        overlap: share of a window that overlaps the next, at least 0 and below 1.
        report: called with the progress from 0 to 1; an error that it raises ends sampling.
    """
    if layout == prior.layout:
        return prior.sample(condition((0.0, 0.0, 1.0, 1.0)), options, seeds, known, report)
    check_layout(prior, layout)
    if not 0 <= overlap < 1:
        raise UserError(f"overlap must be at least 0 and below 1, got {overlap}")
    window, grid = prior.layout.grids[0], layout.grids[0]
    canvas = (max(window[0], grid[0]), max(window[1], grid[1]))
    top, left = ((whole - side) // 2 for whole, side in zip(canvas, grid, strict=True))
    inner = window_slice((top, left), grid)
    known = known or Known.nothing(layout, len(seeds))
    assert (known.mask == known.mask[:1]).all(), "images of one batch share their known positions"
    values, done = (
        place_on_canvas(layout.to_grid(each.cpu()), canvas, inner) for each in (known.values, known.mask)
    )
    rows, columns = (window_starts(whole, side, overlap) for whole, side in zip(canvas, window, strict=True))
    corners = list(product(rows, columns))
    waiting = [(number, window_slice(corner, window)) for number, corner in enumerate(corners)]
    while waiting:
        number, place = max(waiting, key=lambda entry: int(done[entry[1]].sum()))
        waiting.remove((number, place))
        before = len(corners) - len(waiting) - 1
        if not done[place].all():
            given = Known(prior.layout.from_grid(values[place]), prior.layout.from_grid(done[place]))
            inputs = condition(window_box(corners[number], window, (top, left), grid))
            part = partial(report_part, report, before, len(corners))
            sampled = prior.sample(inputs, options, window_seeds(seeds, number), given, part)
            values[place] = prior.layout.to_grid(sampled.cpu())
            done[place] = True
    return layout.from_grid(values[inner]).to(seeds.device)


def report_part(report: Callable[[float], None], number: int, count: int, progress: float) -> None:
    """Report the progress of one of several parts, from 0 to 1."""
    report((number + progress) / count)


def place_on_canvas(
    grid: Shaped[Tensor, "b h w k"], canvas: tuple[int, int], inner: tuple[slice, slice, slice]
) -> Shaped[Tensor, "b H W k"]:
    """Place a grid on a canvas of zeros."""
    result = grid.new_zeros(len(grid), *canvas, grid.shape[-1])
    result[inner] = grid
    return result


def check_layout(prior: Prior, layout: Layout) -> None:
    """Check that a window can slide over a layout."""
    height, width = layout.image_size
    if len(prior.layout.grids) > 1:
        raise UserError(
            f"size {height}x{width} is not supported: it needs codes on one grid, and this prior has "
            f"{len(prior.layout.grids)}; use {prior.layout.image_size[0]}x{prior.layout.image_size[1]}, "
            f"or a prior over one grid"
        )
    for each in (prior.layout, layout):
        check_positions(each, f"use {prior.layout.image_size[0]}x{prior.layout.image_size[1]}")


def check_positions(layout: Layout, instead: str) -> None:
    """Check that codes have a position in the image, unlike those of 1-D compressors.

    Args:
        layout: layout of the codes.
        instead: way out for the error message.
    """
    (height, width), (rows, columns) = layout.image_size, layout.grids[-1]
    if rows == 1 < columns and height * columns > 2 * width:
        raise UserError(
            f"the {columns} codes of this compressor have no position in the image, so parts of it cannot be "
            f"sampled; {instead}, or use a compressor with a grid of codes"
        )


def window_starts(whole: int, side: int, overlap: float) -> list[int]:
    """First row, or column, of each window; the last window ends at the border."""
    stride = max(1, round(side * (1 - overlap)))
    return [*range(0, whole - side, stride), whole - side]


def window_slice(corner: tuple[int, int], size: tuple[int, int]) -> tuple[slice, slice, slice]:
    """Index of a window in a batch of grids, from its first row and column and its size."""
    (top, left), (rows, columns) = corner, size
    return slice(None), slice(top, top + rows), slice(left, left + columns)


def window_box(
    corner: tuple[int, int], window: tuple[int, int], start: tuple[int, int], grid: tuple[int, int]
) -> Box:
    """Box of a window in an image whose grid starts at `start` on the canvas."""
    top, left = ((place - first) / side for place, first, side in zip(corner, start, grid, strict=True))
    return top, left, top + window[0] / grid[0], left + window[1] / grid[1]


def window_seeds(seeds: Int[Tensor, " b"], number: int) -> Int[Tensor, " b"]:
    """Derive the seeds of a window from the images' seeds; the first window keeps them."""
    if number == 0:
        return seeds
    return torch.cat([image_seeds(seed % 2**64, [number]) for seed in seeds.tolist()]).to(seeds.device)
