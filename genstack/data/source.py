"""The contract of sources: images by number, each with a key and a label."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from genstack.data.images import Preprocessing, open_picture
from genstack.data.split import hash_keys
from genstack.errors import UserError

OWN = "pictures that genstack wrote"
FURTHER = "further pages or frames (the first of a file is read)"


@dataclass(frozen=True)
class PictureInfo:
    """Size, mode and number of frames of a picture file; 0 x 0 for a picture that is drawn on demand."""

    height: int
    width: int
    mode: str
    frames: int = 1


def read_info(file: Path | bytes, name: str = "") -> PictureInfo:
    """Look at a picture file without decoding it; see `images.read`."""
    with open_picture(file, name) as picture:
        return PictureInfo(picture.height, picture.width, picture.mode, getattr(picture, "n_frames", 1))


class Source(ABC):
    """Images by number. A new kind of source is a new file in `sources/`.

    `class_names` are the classes in the order of their labels, () for none; `bits` are a channel's.
    """

    class_names: tuple[str, ...] = ()
    bits: int = 8
    generated = False  # True if genstack itself made all of the images

    @property
    def omitted(self) -> dict[str, int]:
        """Counts of what looks like data and is not read, by a plural noun phrase that says what and why."""
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
        """Permanent name of the image; decides its side of the split."""

    def key_hashes(self, count: int) -> Iterator[Float64[np.ndarray, " n"]]:
        """Hashes in [0, 1) of the keys of the first `count` images, for the split, in blocks."""
        return hash_keys(map(self.key, range(count)))

    @abstractmethod
    def info(self, number: int) -> PictureInfo:
        """Size, mode and frames of the picture file.

        Raises:
            UserError: it cannot be read.
        """

    @abstractmethod
    def image(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        """The picture as `images.read` gives it, of any size, with `preprocessing.channels`.

        Raises:
            UserError: it cannot be read.
        """

    def label(self, number: int) -> int:
        """The image's class; 0 where there are none."""
        return 0

    def labels_of(self, numbers: Sequence[int]) -> Int64[np.ndarray, " n"]:
        """The classes of some images; -1 where one has none."""
        return np.fromiter(map(self._label, numbers), np.int64, len(numbers))

    def _label(self, number: int) -> int:
        try:
            return self.label(number)
        except UserError:
            return -1

    def caption(self, number: int) -> str:
        """The caption of the image; "" for none."""
        return self.class_names[self.label(number)] if self.class_names else ""

    def condition_image(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        """Another picture that goes with this one, such as its segmentation map, as `image` gives pictures.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        raise UserError(
            f"{self.key(number)} has no condition image of its own; name a folder by data.condition_images"
        )


def bits_of_first(source: Source) -> int:
    """Bits a channel of the first picture that can be read: 16 where it has more than 256 levels of grey."""
    for number in range(len(source)):
        try:
            return 16 if source.info(number).mode[0] in "IF" else 8
        except UserError:
            continue
    return 8
