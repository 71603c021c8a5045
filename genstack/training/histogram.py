"""Histogram of code usage: bars from the most to the least frequent code."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from genstack.data.sheet import GAP, LINE, TEXT, fit

WIDTH, HEIGHT = 640, 96  # pixels of the bars; few codes have wider ones, many share one
HEAD = LINE + 6  # pixels above the bars
LEFT = 32  # pixels for the numbers beside them
FOOT = 3  # pixels of a code that was used once
BAR, EVEN, GRID, DEAD = (52, 92, 148), (200, 90, 30), (222, 222, 222), (252, 232, 228)


@dataclass(frozen=True)
class Histogram:
    """Contents of one row.

    Args:
        caption: text above the bars.
        counts: counts of the codes in use, the most frequent first.
        codes: number of all codes.
    """

    caption: str
    counts: Int[Tensor, " seen"]
    codes: int


def histograms(rows: Sequence[Histogram]) -> Image.Image:
    """Draw one row of bars each, on a logarithmic axis, and a legend."""
    pitch = HEAD + HEIGHT + LINE + GAP
    page = Image.new("RGB", (LEFT + WIDTH + 2 * GAP, len(rows) * pitch + LINE + 2 * GAP), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(TEXT)
    for number, row in enumerate(rows):
        top = GAP + number * pitch
        pen.text((GAP, top - 2), fit(row.caption, page.width - 2 * GAP, font), "black", font)
        draw(pen, font, row, top + HEAD)
    legend = "codes from most to least frequent; line: all equally frequent; tinted: never used"
    pen.text((LEFT, page.height - LINE - GAP), fit(legend, WIDTH, font), (110, 110, 110), font)
    return page


def draw(
    pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, row: Histogram, top: int
) -> None:
    """Draw the bars of one row, below `top`."""
    bottom, highest = top + HEIGHT, int(row.counts[0]) if len(row.counts) else 1
    decades = max(1, math.ceil(math.log10(highest + 1)))
    unit = (HEIGHT - FOOT) / decades

    def height(count: float) -> float:
        return bottom - FOOT - unit * math.log10(max(1.0, count))

    heights = bars(row)
    right = LEFT + len(heights)
    alive = int((heights > 0).sum())
    pen.rectangle((LEFT + alive, top, right - 1, bottom - 1), fill=DEAD) if alive < len(heights) else None
    for power in range(decades + 1):
        place = height(10.0**power)
        pen.line((LEFT, place, right - 1, place), fill=GRID)
        name = f"{10**power:,}" if power < 4 else f"1e{power}"
        pen.text((LEFT - 3 - font.getlength(name), place - TEXT / 2 - 2), name, (110, 110, 110), font)
    for column, count in enumerate(heights[:alive].double().tolist()):
        pen.line((LEFT + column, height(count), LEFT + column, bottom - 1), fill=BAR)
    even = float(row.counts.sum()) / row.codes
    if even >= 1:
        for begin in range(LEFT, right, 8):
            pen.line((begin, height(even), min(begin + 4, right - 1), height(even)), fill=EVEN)
    last = f"{row.codes:,}"
    pen.text((LEFT, bottom), "1", (110, 110, 110), font)
    pen.text((right - font.getlength(last), bottom), last, (110, 110, 110), font)


def bars(row: Histogram) -> Int[Tensor, " columns"]:
    """Return the count of the first code in each column of pixels; all codes have equal widths."""
    columns = WIDTH if row.codes > WIDTH else row.codes * (WIDTH // row.codes)
    ranks = torch.arange(columns) * row.codes // columns
    seen = ranks < len(row.counts)
    shown = torch.zeros(columns, dtype=torch.int64)
    shown[seen] = row.counts[ranks[seen]]
    return shown
