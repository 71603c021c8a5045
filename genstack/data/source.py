"""The contract of sources: images by number, each with a key and a label."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int64
from PIL.Image import Image
from torch import Tensor

from genstack.data.images import ENDINGS, Preprocessing, grey_bits, open_picture
from genstack.data.split import hash_keys
from genstack.errors import UserError

OWN = "pictures that genstack wrote"
FURTHER = "further pages or frames (the first of a file is read)"
#: Endings of formats that allow several pages or frames.
MULTIFRAME = (*ENDINGS["TIFF"], *ENDINGS["GIF"], *ENDINGS["WEBP"], ".apng")
MOST_COUNTED = 1000  # files whose frames are counted


@dataclass(frozen=True)
class PictureInfo:
    """Size, mode and number of frames of a picture; 0 x 0 if it is drawn on demand."""

    height: int
    width: int
    mode: str
    frames: int = 1


class Source(ABC):
    """Images by number. A new kind of source is a new file in `sources/`.

    Methods raise UserError for an image that cannot be read. `class_names` are the classes in the order of
    their labels, () for none; `bits` is the number of bits per channel.
    """

    class_names: tuple[str, ...] = ()
    bits: int = 8
    generated = False  # True if genstack itself made all of the images

    @property
    def omitted(self) -> dict[str, int]:
        """Counts of files that look like data but are not read, by plural noun phrases with the reason."""
        return {}

    @classmethod
    @abstractmethod
    def names(cls) -> tuple[str, ...]:
        """Examples of `data.source` for this kind, shown in messages."""

    @classmethod
    @abstractmethod
    def claims(cls, name: str) -> bool:
        """Return True if `data.source` names this kind."""

    @abstractmethod
    def __init__(self, name: str): ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def key(self, number: int) -> str:
        """Permanent name of an image, by which it is split."""

    def key_hashes(self, count: int) -> Iterator[Float64[np.ndarray, " n"]]:
        """Hashes in [0, 1) of the first `count` keys, in blocks."""
        return hash_keys(map(self.key, range(count)))

    @abstractmethod
    def info(self, number: int) -> PictureInfo:
        """Size, mode and frames of a picture."""

    @abstractmethod
    def image(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        """Read a picture at its own size, as `Preprocessing.read` does.

        Values are from 0 to 1; with `preprocessing.window`, values of the file, such as 0 to 255.
        """

    def label(self, number: int) -> int:
        """Class of an image; 0 without classes."""
        return 0

    def labels_of(self, numbers: Sequence[int]) -> Int64[np.ndarray, " n"]:
        """Classes of some images; -1 for one that has none."""
        return np.fromiter(map(self._label, numbers), np.int64, len(numbers))

    def _label(self, number: int) -> int:
        try:
            return self.label(number)
        except UserError:
            return -1

    def caption(self, number: int) -> str:
        """Caption of an image; "" for none."""
        return self.class_names[self.label(number)] if self.class_names else ""

    def condition_image(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        """Read the condition image of an image, such as its segmentation map."""
        raise UserError(
            f"{self.key(number)} has no condition image of its own; name a folder by data.condition_images"
        )


class FileSource(Source):
    """Images in picture files."""

    @abstractmethod
    def file(self, number: int) -> tuple[Path | bytes, str]:
        """Path or content of an image's file, and its name for messages."""

    def condition_file(self, number: int) -> tuple[Path | bytes, str]:
        """Path or content of the file of a condition image, and its name for messages."""
        raise UserError(
            f"{self.key(number)} has no condition image of its own; name a folder by data.condition_images"
        )

    @cached_property
    def bits(self) -> int:  # type: ignore[override]
        """Bits per channel of the first readable picture: 16 for grey with more than 256 levels, else 8."""
        for number in range(len(self)):
            try:
                return grey_bits(self.info(number).mode)
            except UserError:
                continue
        return 8

    def info(self, number: int) -> PictureInfo:
        with open_picture(*self.file(number)) as picture:
            return PictureInfo(picture.height, picture.width, picture.mode, frames(picture))

    def image(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        return preprocessing.read(*self.file(number))

    def condition_image(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        return preprocessing.read(*self.condition_file(number))


def frames(picture: Image) -> int:
    """Number of pages or frames of an open picture."""
    return getattr(picture, "n_frames", 1)


def further_frames(files: Iterable[tuple[Path | bytes, str]]) -> int:
    """Count the pages and frames beyond the first of each file, in the first MOST_COUNTED files.

    Args:
        files: path or content of each, and its name for messages.
    """
    count = 0
    for file, name in islice(files, MOST_COUNTED):
        with suppress(UserError), open_picture(file, name) as picture:
            count += frames(picture) - 1
    return count
