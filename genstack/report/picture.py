"""Images as they stand in a page: PNG in data URIs, and maps of errors."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange, reduce
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from genstack.data.images import to_uint8
from genstack.data.sheet import tile

LARGEST = 256  # pixels of the longer side in a page
SMALL = 96  # pixels of the longer side below which each pixel is shown as a square
#: From no error to the largest: black, violet, red, orange, pale yellow, ever brighter.
COLOURS = ((0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))


@dataclass(frozen=True)
class Picture:
    """An image in a page.

    Args:
        uri: all of it.
        width: in pixels.
        height: in pixels.
        alt: what it shows, for those who cannot see it.
        squares: whether it is so small that its pixels are shown as squares.
    """

    uri: str
    width: int
    height: int
    alt: str
    squares: bool


def inline(image: Image.Image, alt: str) -> Picture:
    """A picture of at most LARGEST pixels a side."""
    longer = max(image.size)
    if longer > LARGEST:
        size = [max(1, round(side * LARGEST / longer)) for side in image.size]
        image = image.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    return whole(image, alt)


def whole(image: Image.Image, alt: str) -> Picture:
    """A picture of any size."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(uri, *image.size, alt, max(image.size) < SMALL)


def pictures(images: Float[Tensor, "b c H W"], alts: Sequence[str]) -> list[Picture]:
    """Images, in [-1, 1], for a page."""
    return [
        inline(tile(pixels), alt) for pixels, alt in zip(to_uint8(images).cpu().numpy(), alts, strict=True)
    ]


def errors(images: Float[Tensor, "b c H W"], others: Float[Tensor, "b c H W"]) -> Float[Tensor, "b H W"]:
    """How many of 255 levels two images differ by at each place, on average over the channels."""
    return reduce((images.cpu() - others.cpu()).abs() * 127.5, "b c H W -> b H W", "mean")


def maps(errors: Float[Tensor, "b H W"], largest: float) -> list[Image.Image]:
    """Errors as colours, from black for none to pale yellow for `largest`."""
    shares = (errors / max(largest, 1e-9)).clamp(0, 1).numpy()
    anchors = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(shares, anchors, [colour[channel] for colour in COLOURS]) for channel in range(3)]
    pixels = rearrange(torch.from_numpy(np.stack(channels)), "rgb b H W -> b H W rgb").round().to(torch.uint8)
    return [Image.fromarray(one.numpy()) for one in pixels]
