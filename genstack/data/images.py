"""Picture files to `images` and back; pixels change their range nowhere else."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from io import DEFAULT_BUFFER_SIZE, BufferedReader, BytesIO, FileIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Integer, UInt8
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile, PngInfo
from torch import Tensor

from genstack.atomic import replacing
from genstack.errors import UserError

AVIF = find_spec("PIL._avif") is not None  # since Pillow 11.3
#: Endings by format. No format that Pillow reads by another program.
ENDINGS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    **({"AVIF": (".avif", ".avifs")} if AVIF else {}),
}
FORMATS = tuple(ENDINGS)
SUFFIXES = tuple(ending for endings in ENDINGS.values() for ending in endings)
#: Endings of files that look like data and are not read: pictures of other kinds, tables and archives.
UNREAD = re.compile(
    r"\.(hei[cf]|hif|avifs?|jxl|jp2|j2k|jpx|jxr|svg|psd|eps|ico|tga|pcx|p[pgbn]m|exr|hdr|dng|cr[23]|nef|arw|orf|rw2|raf"
    r"|dcm|npy|npz|mp4|mov|parquet|arrow|tar|zip)$",
    re.IGNORECASE,
)
CHUNK = "genstack"  # text chunk of the PNG files that genstack writes
SHEET = '{"sheet": true}'  # its text, where a file is no single image
MOST_PIXELS = 2**27
#: Pixels that need no proof, and what a byte of the file proves beyond these: no format packs more, but for
#: large pictures of one colour.
UNPROVEN, PIXELS_PER_BYTE = 2**24, 2**13
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing from picture files to the model's images, undone when an image is saved.

    Args:
        channels: 1 grey, 3 colour, 4 colour and transparency.
        height: rows of an image.
        width: columns of an image.
        window: the values of a file that become -1 and 1; values outside are clamped. None for all that a
            file of its kind can hold (0 to 255, 0 to 65535).
        bits: bits a channel of a saved picture, 8 or 16; 16 for one channel only.
        background: red, green and blue, 0 to 255, of what lies behind transparent pictures when `channels`
            is 1 or 3.
    """

    channels: int
    height: int
    width: int
    window: Sequence[float] | None = None
    bits: int = 8
    background: Sequence[int] = (255, 255, 255)

    def __post_init__(self) -> None:
        for name in ("window", "background"):  # lists, where this was read from JSON
            value = getattr(self, name)
            object.__setattr__(self, name, value if value is None else tuple(value))
        if self.channels not in MODES:
            raise UserError(f"channels must be 1 (grey), 3 (colour) or 4 (RGBA), got {self.channels}")
        if len(self.background) != 3 or not all(0 <= value <= 255 for value in self.background):
            raise UserError(f"invalid background {self.background}; expected red, green, blue from 0 to 255")
        if min(self.height, self.width) < 1:
            raise UserError(
                f"an image of {self.height} x {self.width} has no pixels; use a size of at least 1"
            )
        if (self.bits, self.channels) not in {(16, 1), *((8, channels) for channels in MODES)}:
            raise UserError(
                f"{self.bits} bits are not possible with {self.channels} channels; use 8, or 16 with 1"
            )
        if self.window and not 0 <= self.window[0] < self.window[1] <= self.highest:
            raise UserError(
                f"window {self.window} must rise within 0 to {self.highest}, all that {self.bits} bits and "
                f"{self.channels} channels can hold; values up to 65535 need 16-bit grey files and 1 channel"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.channels, self.height, self.width

    @property
    def highest(self) -> int:
        """The largest value that a saved picture can hold."""
        return 2**self.bits - 1

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of `ImageData` by which other pictures become images in the same way."""
        return {
            "resolution": [self.height, self.width],
            "channels": self.channels,
            "window": None if self.window is None else list(self.window),
            "background": list(self.background),
        }

    def to_model(self, pixels: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
        """Pixels as `read` gives them, in [0, 1] or with a window in the file's own values, to [-1, 1]."""
        low, high = self.window or (0.0, 1.0)
        return ((pixels - low) / (high - low) * 2 - 1).clamp(-1, 1)

    def to_file(self, images: Float[Tensor, "b c H W"]) -> Integer[np.ndarray, "b H W c"]:
        """The values that a file stores, uint8 or uint16: the way back from `to_model`."""
        low, high = self.window or (0.0, float(self.highest))
        values = low + shares(images).double() * (high - low)
        kind = np.uint8 if self.bits == 8 else np.uint16
        return rearrange((values + 0.5).floor().cpu().numpy().astype(kind), "b c h w -> b h w c")


def shares(images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
    """Images, [-1, 1], to shares of the full range, [0, 1]; what lies outside is clamped."""
    return (images.detach().float().clamp(-1, 1) + 1) / 2


def to_uint8(images: Float[Tensor, "b c H W"]) -> UInt8[Tensor, "b H W c"]:
    """Images, [-1, 1], to bytes, clamped and rounded half away from zero."""
    return rearrange((shares(images) * 255 + 0.5).floor().to(torch.uint8), "b c h w -> b h w c")


def from_uint8(pixels: UInt8[Tensor, "b H W c"]) -> Float[Tensor, "b c H W"]:
    """Bytes to images, [-1, 1]; `to_uint8` is the way back."""
    return rearrange(pixels.float() / 255 * 2 - 1, "b h w c -> b c h w").contiguous()


def read(
    file: Path | bytes,
    channels: int,
    background: Sequence[int] = (255, 255, 255),
    raw: bool = False,
    name: str = "",
) -> Float[Tensor, "c h w"]:
    """A picture file, or its bytes, upright, first frame, in [0, 1], or in the file's own values if `raw`.

    Files of 16 bits a channel keep all their levels (value / 65535). Transparency is laid on `background`, or
    kept with 4 channels. Grey from colour is luma (ITU-R 601).

    Args:
        file: its path, or all that stands in it.
        channels: 1, 3 or 4.
        background: red, green and blue, 0 to 255.
        raw: leave values as they are, to be read by a window.
        name: of the file, for messages, where `file` is no path.

    Raises:
        UserError: the file is not a picture, is damaged or incomplete, or claims more than 2**27 pixels.
    """
    with open_picture(file, name) as picture:
        return pixels(picture, channels, background, raw)


@contextmanager
def open_picture(file: Path | bytes, name: str = "") -> Iterator[Image.Image]:
    """Open a picture; any error inside the block becomes a UserError with the file name."""
    try:
        with (
            BytesIO(file) if isinstance(file, bytes) else Bounded(FileIO(file)) as stream,
            Image.open(stream, formats=FORMATS) as picture,
        ):
            check_claim(picture, len(file) if isinstance(file, bytes) else file.stat().st_size)
            yield picture
    except Exception as error:  # damaged files make Pillow raise nearly anything
        reason_text = getattr(error, "strerror", None) or str(error)
        reason = (
            re.sub(r" <[\w.]*(BytesIO|Bounded)[^>]*>", "", " ".join(reason_text.split()))
            or type(error).__name__
        )
        name = name or (str(file) if isinstance(file, Path) else "a file")
        raise UserError(f"{name} cannot be read as a picture: {reason}") from error


class Bounded(BufferedReader):
    """A file that is never asked for more than it has left: memory for what is read is taken beforehand."""

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes, fewer at the end."""
        if size is not None and size > DEFAULT_BUFFER_SIZE:
            size = max(0, min(size, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


def check_claim(picture: Image.Image, size: int) -> None:
    """Refuse a picture that claims more pixels than a file of so many bytes can hold."""
    width, height = picture.size
    if width * height > max(UNPROVEN, size * PIXELS_PER_BYTE):
        raise UserError(f"it claims {width} x {height} pixels, which {size} bytes cannot hold")


def pixels(
    picture: Image.Image,
    channels: int,
    background: Sequence[int] = (255, 255, 255),
    raw: bool = False,
) -> Float[Tensor, "c h w"]:
    """An open picture in [0, 1], or in its own values if `raw`; see `read`."""
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise UserError(f"it claims {width} x {height} pixels, more than {MOST_PIXELS}; scale it down first")
    if has_deep_colour(picture):
        return deep_colour(picture, channels, background) * (255 if raw else 1)
    picture = ImageOps.exif_transpose(picture)
    if bits(picture) == 16:
        return deep_pixels(picture, channels, raw)
    if picture.has_transparency_data and channels != 4:
        behind = Image.new("RGBA", picture.size, (*background, 255))
        picture = Image.alpha_composite(behind, picture.convert("RGBA"))
    values = torch.from_numpy(np.array(picture.convert(MODES[channels]), dtype=np.float32))
    values = rearrange(values, "h w -> 1 h w" if channels == 1 else "h w c -> c h w").contiguous()
    return values if raw else values / 255


def bits(picture: Image.Image) -> int:
    """Bits a channel: 16 where a grey picture has more than 256 levels, 8 otherwise."""
    return 16 if picture.mode[0] in "IF" else 8


def deep_pixels(picture: Image.Image, channels: int, raw: bool) -> Float[Tensor, "c h w"]:
    """A grey picture of 16 bits or more (Pillow's modes I;16, I and F)."""
    values = torch.from_numpy(np.array(picture).astype(np.float32))
    if wrong := int((~values.isfinite()).sum()):
        raise UserError(f"{wrong} of its {values.numel()} pixels are not finite numbers (NaN or infinity)")
    low, high = values.min().item(), values.max().item()
    fractions = picture.mode == "F" and 0 < high <= 1
    if not raw and (not 0 <= low <= high <= 65535 or fractions):
        raise UserError(
            f"its values, {low:g} to {high:g}, are not 16-bit numbers; say their range by `window`"
        )
    grey = rearrange(values if raw else values / 65535, "h w -> 1 h w")
    if channels != 4:
        return grey.repeat(channels, 1, 1)
    return torch.cat([grey.repeat(3, 1, 1), torch.full_like(grey, 65535 if raw else 1)])


def has_deep_colour(picture: Image.Image) -> bool:
    """Return True for a PNG file of 16 bits a channel whose lower bits Pillow would drop.

    One with a colour named as transparent is left to Pillow, and so is grey with transparency.
    """
    return (
        isinstance(picture, PngImageFile)
        and [tile[3] for tile in picture.tile] == [f"{picture.mode};16B"]
        and picture.mode in ("RGB", "RGBA")
        and "transparency" not in picture.info
    )


def deep_colour(picture: Image.Image, channels: int, background: Sequence[int]) -> Float[Tensor, "c h w"]:
    """Such a file in [0, 1]: Pillow keeps the first byte of two, then the second, told the other order."""
    assert isinstance(picture, PngImageFile) and picture.fp is not None
    picture.fp.seek(0)
    file = picture.fp.read()
    halves = []
    for ending in ("B", "L"):
        with Image.open(BytesIO(file), formats=("PNG",)) as half:
            half.tile = [half.tile[0]._replace(args=f"{half.mode};16{ending}")]
            halves.append(np.array(ImageOps.exif_transpose(half), dtype=np.float32))
    high, low = halves
    values = rearrange(torch.from_numpy((high * 256 + low) / 65535), "h w c -> c h w").contiguous()
    colour, alpha = values[:3], values[3:]
    if len(alpha) and channels != 4:
        behind = rearrange(torch.tensor(background, dtype=torch.float32) / 255, "c -> c 1 1")
        colour = colour * alpha + behind * (1 - alpha)
    if channels == 1:
        return torch.einsum("chw,c->hw", colour, torch.tensor([0.299, 0.587, 0.114]))[None]
    if channels == 3:
        return colour
    return torch.cat([colour, alpha if len(alpha) else torch.ones_like(colour[:1])])


def save(
    image: Float[Tensor, "c H W"],
    path: Path,
    preprocessing: Preprocessing,
    text: Mapping[str, str] | None = None,
) -> None:
    """Write an image as a PNG file with text chunks; the window is undone. No chunk marks it by itself."""
    values = preprocessing.to_file(rearrange(image, "c h w -> 1 c h w"))[0]
    write(Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values), path, text or {})


def write(
    picture: Image.Image, path: Path, text: Mapping[str, str] = MappingProxyType({CHUNK: SHEET})
) -> None:
    """Write a picture as a PNG file with text chunks, whole or not at all.

    The chunk `genstack`, by default that of a sheet, marks the file, so that it never becomes training data.
    """
    chunks = PngInfo()
    for name, value in text.items():
        chunks.add_text(name, value)
    with replacing(path) as partial:
        picture.save(partial, format="PNG", pnginfo=chunks)


def mark(path: Path) -> str | None:
    """Return the beginning of a PNG file's chunk `genstack`; None for any other file."""
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(4096) or b""
    except OSError:
        return None
    place = 8
    while place + 8 <= len(head) and head[place + 4 : place + 8] != b"IDAT":
        length, kind = int.from_bytes(head[place : place + 4]), head[place + 4 : place + 8]
        data = head[place + 8 : place + 8 + length]
        if kind in (b"tEXt", b"iTXt") and data.startswith(CHUNK.encode() + b"\0"):
            return data[len(CHUNK) + 1 :].decode(errors="replace")
        place += 12 + length
    return None
