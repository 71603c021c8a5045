"""Decoding with changed codes: the job of `genstack decode`, and previews of alternative codes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from einops import repeat
from jaxtyping import Float, Int
from PIL import Image, ImageDraw
from torch import Tensor

from genstack.cli.verbs.decode import (
    change_codes,
    code_layout,
    decode_codes,
    encode_file,
    parse_changes,
    save_decoded,
)
from genstack.layout import CodeLayout
from genstack.prior.editing import cells_to_pixels
from genstack.report.codes import rank
from genstack.web.job import Job, Report

CHOICES = 12  # codes that are shown at a position
MARGIN = 1  # cells around a position in their pictures


@dataclass(frozen=True)
class Decoding(Job):
    """A picture, which is the first of the `places`, decoded from its codes."""

    verb: ClassVar[str] = "decode"

    @property
    def out(self) -> Path:
        return self.folder / "decoded.png"

    @property
    def layout(self) -> CodeLayout:
        """Layout of the codes."""
        return code_layout(self.run.model)

    @cached_property
    def changes(self) -> dict[int, int]:
        """New code at each position."""
        return parse_changes(self.settings.get("change", ()), self.layout)

    @cached_property
    def original(self) -> Int[Tensor, "1 n"]:
        """Codes of the picture."""
        return encode_file(self.run.model, self.places[0])

    @cached_property
    def codes(self) -> Int[Tensor, "1 n"]:
        """Codes with the changes."""
        return change_codes(self.original, self.changes)

    def make(self, report: Report) -> Iterator[list[Path]]:
        save_decoded(self.run.model, self.codes, self.changes, self.out)
        report(1.0)
        yield [self.out]

    @property
    def lines(self) -> list[str]:
        changed = [f"codes[0, {position}] = {code}" for position, code in self.changes.items()]
        return [
            "from pathlib import Path",
            "",
            "import genstack",
            "from PIL import Image",
            "",
            self.load,
            f"codes = model.encode(Image.open({self.path(self.places[0])}))",
            *changed,
            f"model.decode(codes)[0].save({self.path(self.out)})",
        ]

    def text(self) -> str:
        """All codes, a line for each row of a grid."""
        lines: list[str] = []
        width = len(str(self.layout.codebook_size - 1))
        for number, codes in enumerate(self.layout.split(self.codes.cpu())):
            lines += [f"grid {number + 1}"] * (len(self.layout.grids) > 1)
            for row in codes[0].tolist():
                cells = [",".join(f"{symbol:{width}}" for symbol in symbols) for symbols in row]
                lines.append("  ".join(cells))
        return "\n".join(lines)

    def position(self, grid: int, row: int, column: int) -> int:
        """Index of the first symbol at a place of a grid."""
        found = self.layout.positions()
        matches = (found.grid == grid) & (found.row == row) & (found.column == column)
        return int(matches.int().argmax())

    def code(self, position: int) -> list[int]:
        """Symbols at a position."""
        return self.codes[0, position : position + self.layout.depth].tolist()

    def choices(self, grid: int, row: int, column: int) -> tuple[list[list[int]], Float[Tensor, "b c H W"]]:
        """Return alternative codes for a position, and a preview of its surroundings with each.

        Codes of the grid in this picture come first, the most frequent before the others, then codes from all
        over the codebook.
        """
        own = rank(self.layout.split(self.original.cpu())[grid])[0]
        spread = torch.linspace(0, self.layout.codebook_size - 1, 2 * CHOICES).long()
        found = [*own.tolist(), *repeat(spread, "k -> k depth", depth=self.layout.depth).tolist()]
        symbols = torch.tensor([*dict.fromkeys(map(tuple, found))][:CHOICES])
        start = self.position(grid, row, column)
        batch = self.codes.repeat(len(symbols), 1)
        batch[:, start : start + self.layout.depth] = symbols.to(batch.device)
        rows, columns = self.layout.grids[grid]
        cells = torch.zeros(rows, columns, dtype=torch.bool)
        cells[max(0, row - MARGIN) : row + MARGIN + 1, max(0, column - MARGIN) : column + MARGIN + 1] = True
        pixels = cells_to_pixels(cells, self.layout.image_size)
        down, across = (pixels.any(axis).nonzero()[:, 0] for axis in (1, 0))
        images = decode_codes(self.run.model, batch)[:, :, down][..., across]
        return symbols.tolist(), images


def change_at(words: Sequence[str], position: int, symbols: Sequence[int]) -> list[str]:
    """Set the symbols at a position in words such as `12=7`; the last word for a position counts."""
    new = {str(position + index): str(symbol) for index, symbol in enumerate(symbols)}
    kept = [word for word in words if word.partition("=")[0] not in new]
    return [*kept, *(f"{place}={symbol}" for place, symbol in new.items())]


def cell_at(grid: tuple[int, int], size: tuple[int, int], pixel: tuple[int, int]) -> tuple[int, int]:
    """Row and column of a grid under a pixel (x, y) of a picture of a size (width, height)."""
    (rows, columns), (width, height), (x, y) = grid, size, pixel
    return min(rows - 1, y * rows // height), min(columns - 1, x * columns // width)


def enlarged_size(picture: Image.Image, side: int) -> tuple[int, int]:
    """Width and height of a picture enlarged by a whole factor, to at most `side` pixels if possible."""
    factor = max(1, side // max(picture.size))
    return picture.width * factor, picture.height * factor


def draw_grid(
    picture: Image.Image, grid: tuple[int, int], chosen: tuple[int, int] | None, side: int
) -> Image.Image:
    """Enlarge a picture, with the lines of a grid and a frame around a cell."""
    large = picture.convert("RGBA").resize(enlarged_size(picture, side), Image.Resampling.NEAREST)
    overlay, (rows, columns) = Image.new("RGBA", large.size), grid
    pen, grey = ImageDraw.Draw(overlay), (90, 90, 90, 90)
    down = [row * large.height // rows for row in range(rows + 1)]
    across = [column * large.width // columns for column in range(columns + 1)]
    for y in down[1:-1]:
        pen.line([(0, y), (large.width, y)], grey)
    for x in across[1:-1]:
        pen.line([(x, 0), (x, large.height)], grey)
    if chosen is not None:
        row, column = chosen
        box = [(across[column], down[row]), (across[column + 1], down[row + 1])]
        pen.rectangle(box, outline=(220, 60, 20, 255), width=3)
    return Image.alpha_composite(large, overlay).convert("RGB")
