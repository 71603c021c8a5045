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

OWN = "own"  # condition images of the source itself


class ConditionImages:
    """Reads the condition image of each image of a source.

    Args:
        source: the images.
        location: `own` for condition images of the source, or a folder whose pictures have the same relative
            names as the images, with any suffix.
    """

    def __init__(self, source: Source, location: str):
        self.source, self.location = source, location
        if location != OWN and not FolderSource.exists(location):
            raise UserError(f"condition_images {location} not found; give a folder of pictures, or `{OWN}`")
        self.find = None if location == OWN else FileIndex(FolderSource(location))

    def __call__(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        """Read the condition image of image `number`, as sources read pictures."""
        if self.find is None:
            return self.source.condition_image(number, preprocessing)
        name = stem(self.source.key(number))
        found = self.find(name)
        if found is None:
            raise UserError(
                f"{self.source.key(number)} has no condition image: no picture {name} in {self.location}, "
                f"with any suffix"
            )
        return self.find.folder.image(found, preprocessing)


class FileIndex:
    """Index of a folder's pictures by name without suffix: 16 bytes each, shared with loader workers."""

    def __init__(self, folder: FolderSource):
        self.folder = folder
        hashes = (hash_name(stem(folder.key(number))) for number in range(len(folder)))
        found = np.fromiter(hashes, np.uint64, len(folder))
        self.order = np.argsort(found, kind="stable")
        self.hashes = found[self.order]

    def __call__(self, name: str) -> int | None:
        """Return the number of the last picture with a name, or None."""
        wanted = np.uint64(hash_name(name))
        first, end = np.searchsorted(self.hashes, wanted), np.searchsorted(self.hashes, wanted, "right")
        alike = (int(number) for number in self.order[first:end][::-1])
        return next((number for number in alike if stem(self.folder.key(number)) == name), None)


def hash_name(name: str) -> int:
    """Hash a name to a number below 2**64."""
    return int.from_bytes(blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


def stem(key: str) -> str:
    """Remove the suffix of a relative name."""
    return str(PurePosixPath(key).with_suffix(""))


def check_proportions(image: Float[Tensor, "c h w"], other: Float[Tensor, "c tall wide"], name: str) -> None:
    """Reject a condition image whose proportions differ from the image's by more than a pixel."""
    (height, width), (tall, wide) = image.shape[-2:], other.shape[-2:]
    if abs(height * wide - width * tall) > max(height, width, tall, wide):
        raise UserError(
            f"the condition image of {name} is {tall} x {wide}, but the picture is {height} x {width}; "
            f"give both the same proportions"
        )
