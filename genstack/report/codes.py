"""Codebook usage of a compressor, and images of single codes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from genstack.compressor.usage import Usage, Window, usage
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.report.chart import Chart, histogram
from genstack.report.picture import Picture, pictures

MAX_UNIFORM, MAX_CHANGED = 32, 12  # codes per grid
MAX_GRIDS = 3
VISIBLE = 8 / 127.5  # smallest visible difference of pixels
MARGIN = 2  # pixels around a change
BATCH_SIZE = 16


@dataclass(frozen=True)
class Code:
    """A code, its share of the grid's codes, and its image."""

    name: str
    share: float
    picture: Picture


@dataclass(frozen=True)
class Grid:
    """Images of the codes of one grid.

    Args:
        name: name of the grid; "" if there is only one.
        uniform: images decoded from one code at every position.
        original: part of an image in which one code is changed.
        changed: the same part with other codes at this position.
        place: row and column of the position, from 1.
    """

    name: str
    uniform: list[Code]
    original: Picture
    changed: list[Code]
    place: tuple[int, int]


@dataclass(frozen=True)
class Codes:
    """Codes of images.

    Args:
        images: number of encoded images.
        count: number of their codes.
        size: size of the codebook.
        joint: symbols of a position count as one code.
        health: codebook usage.
        chart: frequency of each code.
        grids: images of the codes.
    """

    images: int
    count: int
    size: int
    joint: bool
    health: Usage
    chart: Chart
    grids: list[Grid]


@torch.no_grad()
def codes(model: Model, images: Float[Tensor, "b c H W"]) -> Codes:
    """Encode images, count their codes and decode single ones."""
    layout = model.compressor.code_layout(*images.shape[-2:])
    batches = images.split(BATCH_SIZE)
    encoded = torch.cat([model.compressor.encode(batch.to(model.device)).cpu() for batch in batches])
    window = Window(layout)
    numbers, size = window.numbers(encoded), window.codebook_size
    counts = torch.bincount(numbers, minlength=size).sort(descending=True).values
    chart = histogram("Frequency of each code", (counts / counts.sum()).tolist(), 1 / size)
    ranked = [rank(grid) for grid in layout.split(encoded)]
    spacing = (len(ranked) - 1) / max(1, MAX_GRIDS - 1)
    shown = sorted({round(number * spacing) for number in range(MAX_GRIDS)})
    grids = [show_grid(model, encoded[:1], layout, ranked, index) for index in shown]
    health = usage(numbers, size)
    return Codes(len(images), len(numbers), size, window.joint, health, chart, grids)


def rank(grid: Int[Tensor, "b h w depth"]) -> tuple[Int[Tensor, "k depth"], Float[Tensor, " k"]]:
    """Return joint codes of a grid, most frequent first, and their shares."""
    symbols, counts = rearrange(grid, "b h w depth -> (b h w) depth").unique(dim=0, return_counts=True)
    order = counts.argsort(descending=True, stable=True)
    return symbols[order], counts[order] / counts.sum()


def show_grid(
    model: Model,
    example: Int[Tensor, "1 n"],
    layout: CodeLayout,
    ranked: Sequence[tuple[Int[Tensor, "k depth"], Float[Tensor, " k"]]],
    index: int,
) -> Grid:
    """Decode single codes of one grid; other grids keep their most frequent code, or the example's codes."""
    symbols, shares = ranked[index]
    height, width = layout.grids[index]
    row, column = height // 2, width // 2
    uniform = [
        repeat(others[0], "depth -> k h w depth", k=len(symbols[:MAX_UNIFORM]), h=size[0], w=size[1])
        for (others, _), size in zip(ranked, layout.grids, strict=True)
    ]
    uniform[index] = repeat(symbols[:MAX_UNIFORM], "k depth -> k h w depth", h=height, w=width)
    count = len(symbols[:MAX_CHANGED])
    copies = [repeat(grid, "1 h w depth -> k h w depth", k=count).clone() for grid in layout.split(example)]
    copies[index][:, row, column] = symbols[:MAX_CHANGED]
    original, changed = decode(model, example, layout), decode(model, layout.join(copies), layout)
    rows, columns = changed_area(original, changed)
    name = f"grid {index + 1} of {len(layout.grids)}, {height} x {width}" if len(layout.grids) > 1 else ""
    return Grid(
        name,
        code_pictures(symbols, shares, decode(model, layout.join(uniform), layout)),
        pictures(original[..., rows, columns], ["the image before the change"])[0],
        code_pictures(symbols, shares, changed[..., rows, columns]),
        (row + 1, column + 1),
    )


def decode(model: Model, codes: Int[Tensor, "b n"], layout: CodeLayout) -> Float[Tensor, "b c H W"]:
    """Decode images in batches."""
    batches = [model.compressor.decode(batch.to(model.device), layout) for batch in codes.split(BATCH_SIZE)]
    return torch.cat(batches).clamp(-1, 1).cpu()


def changed_area(
    original: Float[Tensor, "1 c H W"], changed: Float[Tensor, "b c H W"]
) -> tuple[slice, slice]:
    """Return rows and columns with visible differences from the original; all without differences."""
    visible = ((changed - original).abs() > VISIBLE).any(1).any(0)
    return extent(visible.any(1)), extent(visible.any(0))


def extent(visible: Tensor) -> slice:
    """Return the range from the first to the last True, with a margin."""
    places = visible.nonzero().flatten().tolist()
    if not places:
        return slice(0, len(visible))
    return slice(max(0, places[0] - MARGIN), min(len(visible), places[-1] + 1 + MARGIN))


def code_pictures(
    symbols: Int[Tensor, "k depth"], shares: Float[Tensor, " k"], images: Float[Tensor, "b c H W"]
) -> list[Code]:
    """Combine codes with their shares and images."""
    names = [" ".join(map(str, symbol)) for symbol in symbols[: len(images)].tolist()]
    embedded = pictures(images, [f"code {name}" for name in names])
    return [Code(*each) for each in zip(names, shares.tolist(), embedded, strict=False)]
