"""Labelled contact sheets of images."""

from collections.abc import Sequence
from math import ceil

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from genstack.data.images import MODES, to_uint8
from genstack.errors import UserError

SMALLEST_TILE = 64  # pixels of the shorter side
GAP, LINE, TEXT = 4, 14, 11
MOST_LINES = 5  # of a label


def sheet(
    images: Float[Tensor, "b c H W"], columns: int, labels: Sequence[str] | None = None, title: str = ""
) -> Image.Image:
    """Draw images in rows of `columns`, each above its label, below a title of one or more lines.

    Small images are enlarged by a whole factor; transparent ones are composited over white.
    """
    if labels is not None and len(labels) != len(images):
        raise UserError(f"got {len(labels)} labels for {len(images)} images; give one per image, or None")
    height, width = images.shape[-2:]
    factor = max(1, ceil(SMALLEST_TILE / min(height, width)))
    tile_height, tile_width = height * factor, width * factor
    font = ImageFont.load_default(TEXT)
    labels_of_tiles = [wrap(label, tile_width, font) for label in labels or ()]
    pitch = tile_height + GAP + LINE * max(map(len, labels_of_tiles), default=0)
    lines = title.splitlines()
    top = GAP + LINE * len(lines)
    size = (GAP + columns * (tile_width + GAP), top + ceil(len(images) / columns) * pitch)
    page = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        pen.text((GAP, GAP // 2 + number * LINE), fit(line, size[0] - 2 * GAP, font), "black", font)
    for number, pixels in enumerate(to_uint8(images).cpu().numpy()):
        row, column = divmod(number, columns)
        left, upper = GAP + column * (tile_width + GAP), top + row * pitch
        page.paste(tile(pixels).resize((tile_width, tile_height), Image.Resampling.NEAREST), (left, upper))
        for below, line in enumerate(labels_of_tiles[number] if labels_of_tiles else ()):
            pen.text((left, upper + tile_height + below * LINE), line, "black", font)
    return page


def table(cells: Sequence[Sequence[Image.Image]], rows: Sequence[str], columns: Sequence[str]) -> Image.Image:
    """Draw pictures of equal size in named rows and columns."""
    font = ImageFont.load_default(TEXT)
    width, height = cells[0][0].size
    left = ceil(max(map(font.getlength, rows))) + 2 * GAP
    page = Image.new("RGB", (left + len(columns) * width, LINE + GAP + len(rows) * height), "white")
    pen = ImageDraw.Draw(page)
    for number, name in enumerate(columns):
        pen.text((left + number * width + GAP, GAP // 2), fit(name, width - GAP, font), "black", font)
    for row, (name, pictures) in enumerate(zip(rows, cells, strict=True)):
        upper = LINE + GAP + row * height
        pen.text((GAP, upper + GAP), name, "black", font)
        for column, picture in enumerate(pictures):
            page.paste(picture, (left + column * width, upper))
    return page


def tile(pixels: np.ndarray) -> Image.Image:
    """Convert an image to an opaque picture."""
    mode = MODES[pixels.shape[-1]]
    picture = Image.fromarray(pixels[..., 0] if mode == "L" else pixels)
    if mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def wrap(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Wrap a text into at most MOST_LINES lines of a width in pixels; the last one is cut."""
    lines: list[str] = []
    most = MOST_LINES * (width + 1)  # letters, since nearly all are wider than a pixel
    text = text if len(text) <= most else text[:most] + "…"
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and (len(lines) == MOST_LINES or font.getlength(longer) <= width):
            lines[-1] = longer
        else:
            lines.append(word)
    return [fit(line, width, font) for line in lines]


def fit(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Cut a text to a width in pixels."""
    if len(text) <= width and font.getlength(text) <= width:
        return text
    text = text[:width]
    least, most = 0, len(text)  # letters that fit, letters that may fit
    while least < most:
        middle = (least + most + 1) // 2
        if font.getlength(text[:middle] + "…") <= width:
            least = middle
        else:
            most = middle - 1
    return text[:least] + "…"
