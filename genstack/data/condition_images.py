"""Condition images: the picture that goes with each image."""

from hashlib import blake2b
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Float
from torch import Tensor

from genstack.data.images import Preprocessing
from genstack.data.source import Source
from genstack.data.sources.folder import FolderSource
from genstack.errors import UserError

OWN = "own"  # as the source itself gives them


class ConditionImages:
    """The condition image of each image of a source.

    Args:
        source: the images.
        place: `own` for those that the source has, or a folder whose pictures have the names of the images,
            in folders and all, with any suffix.
    """

    def __init__(self, source: Source, place: str):
        self.source, self.place = source, place
        self.find = None if place == OWN else FileIndex(FolderSource(existing_folder(place)))

    def __call__(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        """The condition image of image `number`, as sources give pictures.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        if self.find is None:
            return self.source.condition_image(number, preprocessing)
        name = stem(self.source.key(number))
        found = self.find(name)
        if found is None:
            raise UserError(
                f"{self.source.key(number)} has no condition image: {self.place} holds no picture {name}, "
                f"whatever its suffix"
            )
        return self.find.folder.image(found, preprocessing)


class FileIndex:
    """Pictures of a folder by their names without suffixes; 16 bytes each, shared with a loader's workers.

    Args:
        folder: it.
    """

    def __init__(self, folder: FolderSource):
        self.folder = folder
        hashes = (hash_name(stem(folder.key(number))) for number in range(len(folder)))
        found = np.fromiter(hashes, np.uint64, len(folder))
        self.order = np.argsort(found, kind="stable")
        self.hashes = found[self.order]

    def __call__(self, name: str) -> int | None:
        """The number of the last picture with a name; None where there is none."""
        wanted = np.uint64(hash_name(name))
        first, end = np.searchsorted(self.hashes, wanted), np.searchsorted(self.hashes, wanted, "right")
        alike = (int(number) for number in self.order[first:end][::-1])
        return next((number for number in alike if stem(self.folder.key(number)) == name), None)


def hash_name(name: str) -> int:
    """A name as a number below 2**64; two names seldom have the same one."""
    return int.from_bytes(blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


def existing_folder(place: str) -> str:
    """A folder that is there.

    Raises:
        UserError: it is not.
    """
    if not FolderSource.exists(place):
        raise UserError(f"condition_images {place} not found; give a folder of pictures, or `{OWN}`")
    return place


def stem(key: str) -> str:
    """A relative name without its suffix."""
    return str(PurePosixPath(key).with_suffix(""))


def check_proportions(image: Float[Tensor, "c h w"], other: Float[Tensor, "c tall wide"], name: str) -> None:
    """Refuse a condition image that does not lie over its image, however much larger or smaller.

    Raises:
        UserError: its proportions differ by more than a pixel's worth.
    """
    (height, width), (tall, wide) = image.shape[-2:], other.shape[-2:]
    if abs(height * wide - width * tall) > max(height, width, tall, wide):
        raise UserError(
            f"the condition image of {name} is {tall} x {wide}, and the picture {height} x {width}; "
            f"give both the same proportions"
        )
