"""Images of a page as PNG data URIs, and error maps."""

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

MAX_SIDE = 256  # pixels of the longer side
PIXELATED = 96  # pixels of the longer side, below which pixels are shown as squares
#: Colours of an error map from none to the largest error, with increasing brightness.
COLOURS = ((0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))


@dataclass(frozen=True)
class Picture:
    """An image in a page.

    Args:
        uri: data URI.
        width: width in pixels.
        height: height in pixels.
        alt: text for screen readers.
        squares: show pixels as squares.
    """

    uri: str
    width: int
    height: int
    alt: str
    squares: bool


def thumbnail(image: Image.Image, alt: str) -> Picture:
    """Embed an image, scaled down to MAX_SIDE."""
    longer = max(image.size)
    if longer > MAX_SIDE:
        width, height = (max(1, round(side * MAX_SIDE / longer)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return embed(image, alt)


def embed(image: Image.Image, alt: str) -> Picture:
    """Embed an image of any size."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(uri, *image.size, alt, max(image.size) < PIXELATED)


def pictures(images: Float[Tensor, "b c H W"], alts: Sequence[str]) -> list[Picture]:
    """Embed images in [-1, 1]."""
    pixels = to_uint8(images).cpu().numpy()
    return [thumbnail(tile(each), alt) for each, alt in zip(pixels, alts, strict=True)]


def errors(images: Float[Tensor, "b c H W"], others: Float[Tensor, "b c H W"]) -> Float[Tensor, "b H W"]:
    """Return the absolute difference in levels of 255, averaged over channels."""
    return reduce((images.cpu() - others.cpu()).abs() * 127.5, "b c H W -> b H W", "mean")


def error_maps(errors: Float[Tensor, "b H W"], largest: float) -> list[Image.Image]:
    """Colour errors from black for none to pale yellow for `largest`."""
    shares = (errors / max(largest, 1e-9)).clamp(0, 1).numpy()
    anchors = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(shares, anchors, [colour[channel] for colour in COLOURS]) for channel in range(3)]
    pixels = rearrange(torch.from_numpy(np.stack(channels)), "rgb b H W -> b H W rgb").round().to(torch.uint8)
    return [Image.fromarray(one.numpy()) for one in pixels]
