"""The contract of sources: images by number, each with a key and a label."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from genstack.data.images import Preprocessing, opened
from genstack.data.split import hashed
from genstack.errors import UserError

OWN = "pictures that genstack wrote"
FURTHER = "further pages or frames (the first of a file is read)"


@dataclass(frozen=True)
class Stored:
    """Size, mode and number of frames of a picture file; 0 x 0 for a picture that is drawn on demand."""

    height: int
    width: int
    mode: str
    frames: int = 1


def stored(file: Path | bytes, name: str = "") -> Stored:
    """Look at a picture file without decoding it; see `images.read`."""
    with opened(file, name) as picture:
        return Stored(picture.height, picture.width, picture.mode, getattr(picture, "n_frames", 1))


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
        """What `data.source` may say to mean this kind, as examples for messages."""

    @classmethod
    @abstractmethod
    def claims(cls, name: str) -> bool:
        """Whether `data.source` means this kind."""

    @abstractmethod
    def __init__(self, name: str): ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def key(self, number: int) -> str:
        """A name that stays with the image, whatever else the source holds; decides its side of the split."""

    def places(self, count: int) -> Iterator[Float64[np.ndarray, " n"]]:
        """Where the keys of the first `count` images lie in [0, 1), for the split; some at a time."""
        return hashed(map(self.key, range(count)))

    @abstractmethod
    def stored(self, number: int) -> Stored:
        """How the picture is kept.

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
        """What the image shows, in words; "" where nothing is known."""
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
            return 16 if source.stored(number).mode[0] in "IF" else 8
        except UserError:
            continue
    return 8
