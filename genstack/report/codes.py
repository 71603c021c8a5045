"""Which codes a compressor uses, and what single ones look like."""

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

ALONE, VARIED = 32, 12  # codes that are shown for each grid
MOST_GRIDS = 3
CHANGED = 8 / 127.5  # least difference between pixels that is seen
MARGIN = 2  # pixels around what changes
BATCH = 16


@dataclass(frozen=True)
class Code:
    """A code as a picture.

    Args:
        name: its symbols.
        share: of all the codes of its grid.
        picture: what it looks like.
    """

    name: str
    share: float
    picture: Picture


@dataclass(frozen=True)
class Grid:
    """What the codes of one grid look like.

    Args:
        name: of the grid; "" where there is only one.
        alone: each code at every place of its grid.
        original: the part of an image in which one code is changed.
        varied: that part with other codes at that one place.
        place: the row and the column of it, from 1.
    """

    name: str
    alone: list[Code]
    original: Picture
    varied: list[Code]
    place: tuple[int, int]


@dataclass(frozen=True)
class Codes:
    """The codes of images.

    Args:
        images: how many were encoded.
        count: codes of them all.
        size: how many different codes there are.
        joint: whether the symbols at a place count as one code.
        health: how much of the codebook is in use.
        chart: how often each occurs.
        grids: what they look like.
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
    """The codes of images."""
    height, width = images.shape[-2:]
    layout = model.compressor.layout(height, width)
    found = torch.cat([model.compressor.encode(some.to(model.device)).cpu() for some in images.split(BATCH)])
    window = Window(layout)
    numbers, size = window.numbers(found), window.codebook_size
    counts = torch.bincount(numbers, minlength=size).sort(descending=True).values
    chart = histogram("How often each code occurs", (counts / counts.sum()).tolist(), 1 / size)
    return Codes(
        len(images),
        len(numbers),
        size,
        window.joint,
        usage(numbers, size),
        chart,
        grids(model, found, layout),
    )


def grids(model: Model, found: Int[Tensor, "b n"], layout: CodeLayout) -> list[Grid]:
    """What single codes look like, of some of the grids."""
    ranked = [rank(grid) for grid in layout.split(found)]
    last = len(ranked) - 1
    chosen = sorted({round(number * last / max(1, MOST_GRIDS - 1)) for number in range(MOST_GRIDS)})
    return [show(model, found[0], layout, ranked, number) for number in chosen]


def rank(grid: Int[Tensor, "b h w depth"]) -> tuple[Int[Tensor, "k depth"], Float[Tensor, " k"]]:
    """The joint codes of a grid, the most frequent first, and the share of each."""
    symbols, counts = rearrange(grid, "b h w depth -> (b h w) depth").unique(dim=0, return_counts=True)
    order = counts.argsort(descending=True, stable=True)
    return symbols[order], counts[order] / counts.sum()


def show(
    model: Model,
    example: Int[Tensor, " n"],
    layout: CodeLayout,
    ranked: Sequence[tuple[Int[Tensor, "k depth"], Float[Tensor, " k"]]],
    number: int,
) -> Grid:
    """What single codes of one grid look like; other grids keep their most frequent, or the example's."""
    symbols, shares = ranked[number]
    height, width = layout.grids[number]
    row, column = height // 2, width // 2
    plain = [
        repeat(others[0], "depth -> k h w depth", k=len(symbols[:ALONE]), h=size[0], w=size[1])
        for (others, _), size in zip(ranked, layout.grids, strict=True)
    ]
    plain[number] = repeat(symbols[:ALONE], "k depth -> k h w depth", h=height, w=width)
    whole = [
        repeat(grid, "1 h w depth -> k h w depth", k=len(symbols[:VARIED])).clone()
        for grid in split(example, layout)
    ]
    whole[number][:, row, column] = symbols[:VARIED]
    original = decode(model, rearrange(example, "n -> 1 n"), layout)
    varied = decode(model, layout.join(whole), layout)
    rows, columns = changed(original, varied)
    alone = decode(model, layout.join(plain), layout)
    named = f"grid {number + 1} of {len(layout.grids)}, {height} x {width}" if len(layout.grids) > 1 else ""
    return Grid(
        named,
        told(symbols, shares, alone),
        pictures(original[..., rows, columns], ["the image before the change"])[0],
        told(symbols, shares, varied[..., rows, columns]),
        (row + 1, column + 1),
    )


def split(example: Int[Tensor, " n"], layout: CodeLayout) -> list[Tensor]:
    """The grids of one image's codes."""
    return layout.split(rearrange(example, "n -> 1 n"))


def decode(model: Model, found: Int[Tensor, "b n"], layout: CodeLayout) -> Float[Tensor, "b c H W"]:
    """The images of codes, some at a time."""
    parts = [model.compressor.decode(some.to(model.device), layout) for some in found.split(BATCH)]
    return torch.cat(parts).clamp(-1, 1).cpu()


def changed(original: Float[Tensor, "1 c H W"], varied: Float[Tensor, "b c H W"]) -> tuple[slice, slice]:
    """The rows and columns in which any of some images differs from an original; all where none does."""
    seen = ((varied - original).abs() > CHANGED).any(1).any(0)
    return extent(seen.any(1)), extent(seen.any(0))


def extent(seen: Tensor) -> slice:
    """From the first to the last that is seen, with a margin."""
    places = seen.nonzero().flatten().tolist()
    if not places:
        return slice(0, len(seen))
    return slice(max(0, places[0] - MARGIN), min(len(seen), places[-1] + 1 + MARGIN))


def told(
    symbols: Int[Tensor, "k depth"], shares: Float[Tensor, " k"], images: Float[Tensor, "b c H W"]
) -> list[Code]:
    """Codes with their names and pictures."""
    names = [" ".join(map(str, symbol)) for symbol in symbols[: len(images)].tolist()]
    shown = pictures(images, [f"code {name}" for name in names])
    return [
        Code(name, share, picture)
        for name, share, picture in zip(names, shares.tolist(), shown, strict=False)
    ]
