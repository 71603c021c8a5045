"""Conversion between picture files and images in [-1, 1]; no other file changes the range of pixels."""

import errno
import json
import os
import re
import stat
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

from genstack.atomic import atomic_path
from genstack.errors import UserError

AVIF = find_spec("PIL._avif") is not None  # since Pillow 11.3
#: Endings by format; formats for which Pillow runs another program are left out.
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
#: Endings of data that is not read: pictures in other formats, tables and archives.
UNREAD = re.compile(
    r"\.(hei[cf]|hif|avifs?|jxl|jp2|j2k|jpx|jxr|svg|psd|eps|ico|tga|pcx|p[pgbn]m|exr|hdr|dng|cr[23]|nef|arw|orf|rw2|raf"
    r"|dcm|npy|npz|mp4|mov|avi|webm|mkv|parquet|arrow|tar|t?gz|zip|7z|rar|tfrecords?|h5|hdf5|lmdb|mdb)$",
    re.IGNORECASE,
)
CHUNK = "genstack"  # text chunk of the PNG files that genstack writes
SHEET = '{"sheet": true}'  # its text for a sheet of several images
IMAGE = '{"image": true}'  # its text for one image without settings
MOST_PIXELS = 2**27
#: Pixels that any file may have, and pixels per byte of larger files; only flat colour is packed tighter.
UNPROVEN, PIXELS_PER_BYTE = 2**24, 2**13
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing from picture files to images of a model, inverted when an image is saved.

    Args:
        channels: 1 grey, 3 colour, 4 colour and transparency.
        height: rows of an image.
        width: columns of an image.
        window: values of a file that become -1 and 1; values outside are clamped. None for the full range
            of a file (0 to 255, or 0 to 65535).
        bits: bits per channel of a saved picture: 8, or 16 with one channel.
        background: red, green and blue, 0 to 255, behind transparent pictures; not used with 4 channels.
    """

    channels: int
    height: int
    width: int
    window: Sequence[float] | None = None
    bits: int = 8
    background: Sequence[int] = (255, 255, 255)

    def __post_init__(self) -> None:
        for name in ("window", "background"):  # lists when read from JSON
            value = getattr(self, name)
            object.__setattr__(self, name, value if value is None else tuple(value))
        if self.channels not in MODES:
            raise UserError(f"channels must be 1 (grey), 3 (colour) or 4 (RGBA), got {self.channels}")
        if len(self.background) != 3 or not all(0 <= value <= 255 for value in self.background):
            raise UserError(f"invalid background {self.background}; expected red, green, blue from 0 to 255")
        if min(self.height, self.width) < 1:
            raise UserError(f"image sides must be at least 1, got {self.height} x {self.width}")
        if (self.bits, self.channels) not in {(16, 1), *((8, channels) for channels in MODES)}:
            raise UserError(
                f"invalid bits {self.bits} with {self.channels} channels; use 8, or 16 with 1 channel"
            )
        if self.window and not 0 <= self.window[0] < self.window[1] <= self.highest:
            raise UserError(
                f"window must rise within 0 to {self.highest} for {self.bits} bits and {self.channels} "
                f"channels, got {self.window}; values up to 65535 need 16-bit grey files and 1 channel"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.channels, self.height, self.width

    @property
    def highest(self) -> int:
        """Largest value of a saved picture."""
        return 2**self.bits - 1

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of `ImageData` with the same preprocessing."""
        return {
            "resolution": [self.height, self.width],
            "channels": self.channels,
            "window": None if self.window is None else list(self.window),
            "background": list(self.background),
        }

    def read(self, file: Path | bytes, name: str = "") -> Float[Tensor, "c h w"]:
        """Read a picture file; see the function `read`."""
        return read(file, self.channels, self.background, self.window is not None, name)

    def pixels(self, picture: Image.Image) -> Float[Tensor, "c h w"]:
        """Convert an open picture to pixels; see `read`."""
        return pixels(picture, self.channels, self.background, self.window is not None)

    def to_model(self, pixels: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
        """Convert pixels from `read`, in [0, 1] or with a window in the file's values, to [-1, 1]."""
        low, high = self.window or (0.0, 1.0)
        return ((pixels - low) / (high - low) * 2 - 1).clamp(-1, 1)

    def to_file(self, images: Float[Tensor, "b c H W"]) -> Integer[np.ndarray, "b H W c"]:
        """Convert images to the values of a file, uint8 or uint16; inverse of `to_model`."""
        low, high = self.window or (0.0, float(self.highest))
        values = low + shares(images).double() * (high - low)
        kind = np.uint8 if self.bits == 8 else np.uint16
        return rearrange((values + 0.5).floor().cpu().numpy().astype(kind), "b c h w -> b h w c")


def shares(images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
    """Convert images from [-1, 1] to [0, 1], clamped."""
    return (images.detach().float().clamp(-1, 1) + 1) / 2


def to_uint8(images: Float[Tensor, "b c H W"]) -> UInt8[Tensor, "b H W c"]:
    """Convert images from [-1, 1] to bytes, clamped and rounded half away from zero."""
    return rearrange((shares(images) * 255 + 0.5).floor().to(torch.uint8), "b c h w -> b h w c")


def from_uint8(pixels: UInt8[Tensor, "b H W c"]) -> Float[Tensor, "b c H W"]:
    """Convert bytes to images in [-1, 1]; inverse of `to_uint8`."""
    return rearrange(pixels.float() / 255 * 2 - 1, "b h w c -> b c h w").contiguous()


def read(
    file: Path | bytes,
    channels: int,
    background: Sequence[int] = (255, 255, 255),
    raw: bool = False,
    name: str = "",
) -> Float[Tensor, "c h w"]:
    """Read the first frame of a picture file, upright, in [0, 1].

    Files with 16 bits per channel keep all levels (value / 65535). Transparency is composited over
    `background`, or kept with 4 channels. Colour becomes grey as luma (ITU-R 601).

    Args:
        file: path or content of the file.
        channels: 1, 3 or 4.
        background: red, green and blue, 0 to 255.
        raw: keep the file's own values, for a window.
        name: name of the file for messages; by default its path.
    """
    with open_picture(file, name) as picture:
        return pixels(picture, channels, background, raw)


@contextmanager
def open_picture(file: Path | bytes, name: str = "") -> Iterator[Image.Image]:
    """Open a picture; any error in the block becomes a UserError that names the file."""
    try:
        with (
            BytesIO(file)
            if isinstance(file, bytes)
            else Bounded(FileIO(file, opener=open_regular)) as stream,
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


def open_regular(path: str | Path, flags: int) -> int:
    """Open a regular file, as an opener of `FileIO`; a pipe would wait for a writer.

    Raises:
        OSError: not found, or not a regular file.
    """
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return descriptor


class Bounded(BufferedReader):
    """A file whose `read` never asks for more bytes than are left, since Python allocates them beforehand."""

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes, fewer at the end."""
        if size is not None and size > DEFAULT_BUFFER_SIZE:
            size = max(0, min(size, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


def check_claim(picture: Image.Image, size: int) -> None:
    """Reject a picture whose header has more pixels than a file of this size can hold."""
    width, height = picture.size
    if width * height > max(UNPROVEN, size * PIXELS_PER_BYTE):
        raise UserError(f"its header says {width} x {height} pixels, which {size} bytes cannot hold")


def pixels(
    picture: Image.Image,
    channels: int,
    background: Sequence[int] = (255, 255, 255),
    raw: bool = False,
) -> Float[Tensor, "c h w"]:
    """Convert an open picture to pixels; see `read`."""
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise UserError(f"it has {width} x {height} pixels, more than {MOST_PIXELS}; scale it down first")
    if has_deep_colour(picture):
        return deep_colour(picture, channels, background) * (255 if raw else 1)
    picture = ImageOps.exif_transpose(picture)
    if grey_bits(picture.mode) == 16:
        return deep_pixels(picture, channels, raw)
    if picture.has_transparency_data and channels != 4:
        behind = Image.new("RGBA", picture.size, (*background, 255))
        picture = Image.alpha_composite(behind, picture.convert("RGBA"))
    values = torch.from_numpy(np.array(picture.convert(MODES[channels]), dtype=np.float32))
    values = rearrange(values, "h w -> 1 h w" if channels == 1 else "h w c -> c h w").contiguous()
    return values if raw else values / 255


def grey_bits(mode: str) -> int:
    """Bits per channel of Pillow's modes: 16 for grey with more than 256 levels, 8 otherwise."""
    return 16 if mode[0] in "IF" else 8


def deep_pixels(picture: Image.Image, channels: int, raw: bool) -> Float[Tensor, "c h w"]:
    """Pixels of a grey picture with 16 bits or more (Pillow's modes I;16, I and F)."""
    values = torch.from_numpy(np.array(picture).astype(np.float32))
    if wrong := int((~values.isfinite()).sum()):
        raise UserError(f"{wrong} of its {values.numel()} pixels are not finite numbers (NaN or infinity)")
    low, high = values.min().item(), values.max().item()
    fractions = picture.mode == "F" and 0 < high <= 1
    if not raw and (not 0 <= low <= high <= 65535 or fractions):
        raise UserError(
            f"its values, {low:g} to {high:g}, are not 16-bit numbers; give their range as `window`"
        )
    grey = rearrange(values if raw else values / 65535, "h w -> 1 h w")
    if channels != 4:
        return grey.repeat(channels, 1, 1)
    return torch.cat([grey.repeat(3, 1, 1), torch.full_like(grey, 65535 if raw else 1)])


def has_deep_colour(picture: Image.Image) -> bool:
    """Return True for a PNG file with 16 bits per channel, whose lower bits Pillow would drop.

    Pillow itself reads files with a transparent colour, and grey with transparency.
    """
    return (
        isinstance(picture, PngImageFile)
        and [tile[3] for tile in picture.tile] == [f"{picture.mode};16B"]
        and picture.mode in ("RGB", "RGBA")
        and "transparency" not in picture.info
    )


def deep_colour(picture: Image.Image, channels: int, background: Sequence[int]) -> Float[Tensor, "c h w"]:
    """Pixels in [0, 1], read twice: Pillow keeps one of two bytes, and the other with reversed byte order."""
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
    text: Mapping[str, str] = MappingProxyType({CHUNK: IMAGE}),
) -> None:
    """Write an image as a PNG file with text chunks.

    A chunk `genstack` keeps the file out of training data among other pictures.
    """
    values = preprocessing.to_file(rearrange(image, "c h w -> 1 c h w"))[0]
    write(Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values), path, text)


def save_all(
    images: Float[Tensor, "b c H W"],
    folder: Path,
    preprocessing: Preprocessing,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> list[Path]:
    """Write images as `00000.png` and so on, with index and settings in a text chunk; return the files."""
    files = [folder / file_name(index) for index in range(len(images))]
    for index, (image, file) in enumerate(zip(images, files, strict=True)):
        save(image, file, preprocessing, {CHUNK: json.dumps({"index": index, **settings})})
    return files


def file_name(index: int) -> str:
    """Name of an image in a folder of images that genstack makes."""
    return f"{index:05d}.png"


def write(
    picture: Image.Image, path: Path, text: Mapping[str, str] = MappingProxyType({CHUNK: SHEET})
) -> None:
    """Write a picture as a PNG file with text chunks.

    A chunk `genstack` keeps the file out of training data; by default it marks a sheet.
    """
    chunks = PngInfo()
    for name, value in text.items():
        chunks.add_text(name, value)
    with atomic_path(path) as partial:
        picture.save(partial, format="PNG", pnginfo=chunks)


def read_mark(path: Path) -> str | None:
    """Read the beginning of a PNG file's chunk `genstack`; None for any other file."""
    try:
        with FileIO(path, opener=open_regular) as file:
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
