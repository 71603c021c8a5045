"""Pictures beside pictures: where the condition image of each image comes from."""

from pathlib import PurePosixPath

from jaxtyping import Float
from torch import Tensor

from genstack.data.images import Preprocessing
from genstack.data.source import Source
from genstack.data.sources.folder import FolderSource
from genstack.errors import UserError

OWN = "own"  # as the source itself gives them


class Beside:
    """The condition image of each image of a source.

    Args:
        source: the images.
        place: `own` for those that the source has, or a folder whose pictures have the names of the images,
            in folders and all, with any suffix.
    """

    def __init__(self, source: Source, place: str):
        self.source, self.place = source, place
        self.folder = None if place == OWN else FolderSource(checked(place))
        keys = range(0) if self.folder is None else range(len(self.folder))
        self.numbers = {bare(self.folder.key(number)): number for number in keys if self.folder is not None}

    def __call__(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        """The condition image of image `number`, as sources give pictures.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        if self.folder is None:
            return self.source.condition_image(number, preprocessing)
        name = bare(self.source.key(number))
        if name not in self.numbers:
            raise UserError(
                f"{self.source.key(number)} has no condition image: {self.place} holds no picture {name}, "
                f"whatever its suffix"
            )
        return self.folder.image(self.numbers[name], preprocessing)


def checked(place: str) -> str:
    """A folder that is there.

    Raises:
        UserError: it is not.
    """
    if not FolderSource.exists(place):
        raise UserError(f"condition_images {place} is no folder; give a folder of pictures, or `{OWN}`")
    return place


def bare(key: str) -> str:
    """A relative name without its suffix."""
    return str(PurePosixPath(key).with_suffix(""))


def check_alike(image: Float[Tensor, "c h w"], other: Float[Tensor, "c tall wide"], name: str) -> None:
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
