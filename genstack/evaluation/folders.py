"""Two folders of images, as sets, and pair by pair if they have the same file names."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from genstack.data.images import CHUNK, FORMATS
from genstack.data.source import Source
from genstack.data.sources.folder import FolderSource
from genstack.errors import UserError
from genstack.evaluation.reference import ReferenceSet

LISTED = 5  # unreadable images in a message


def open_folder(name: str) -> FolderSource:
    """Open a folder of images; a missing or empty one is an error."""
    if not Path(name).expanduser().exists():
        raise UserError(f"folder {name} not found; name two folders of images, or one run")
    return FolderSource(name)


def common_shape(folders: Sequence[FolderSource]) -> tuple[int, int, int]:
    """Return channels, height and width of all images in some folders; other sizes are an error."""
    sizes: dict[tuple[int, int], str] = {}
    grey, unreadable = True, []
    for folder in folders:
        for index in range(len(folder)):
            try:
                stored = folder.info(index)
            except UserError as error:
                unreadable.append(str(error))
                continue
            sizes.setdefault((stored.height, stored.width), str(folder.path(index)))
            grey = grey and stored.mode[0] in "1LIF" and "A" not in stored.mode
            if len(sizes) > 1:
                (one, other), (path, other_path) = sizes, sizes.values()
                raise UserError(
                    f"sizes differ: {path} is {one[0]} x {one[1]}, {other_path} is {other[0]} x {other[1]}; "
                    f"crop and scale all images with --data.resolution {one[0]},{one[1]}"
                )
    if unreadable:
        raise unreadable_error(unreadable, sum(map(len, folders)))
    (height, width), *_ = sizes
    return (1 if grey else 3), height, width


def unreadable_error(reasons: Sequence[str], count: int) -> UserError:
    """Build the error for unreadable images; a comparison needs all of them."""
    listed = "; ".join(reasons[:LISTED])
    more = f"; and {len(reasons) - LISTED} more" if len(reasons) > LISTED else ""
    return UserError(
        f"cannot read {len(reasons)} of {count} images, and a comparison needs all: {listed}{more}; repair "
        "or remove them (`genstack data check FOLDER` lists all)"
    )


def are_pairs(real: ReferenceSet, generated: ReferenceSet) -> bool:
    """Return True if both sets have the same file names and the second was not sampled from a prior."""
    if "seed" in sample_metadata(generated.data.catalog):
        return False
    keys = [{side.key(index) for index in range(len(side))} for side in (real, generated)]
    return keys[0] == keys[1]


def read_images(sets: Sequence[ReferenceSet], which: int, indices: Sequence[int]) -> Float[Tensor, "b c H W"]:
    """Read images of one of two sets; unreadable ones are an error that counts both sets."""
    batch = sets[which].read(indices)
    if batch.skipped:
        reasons = [reason for each in sets for reason in unreadable_images(each)]
        raise unreadable_error(reasons, sum(map(len, sets)))
    return batch.images


def unreadable_images(images: ReferenceSet) -> Iterator[str]:
    """Yield the reason for each unreadable image."""
    for index in images.indices:
        try:
            images.data.catalog.image(index, images.data.preprocessing)
        except UserError as error:
            yield str(error)


def sample_metadata(folder: Source) -> dict[str, Any]:
    """Return the metadata that `genstack sample` wrote into a folder's first image; {} if there is none."""
    if not isinstance(folder, FolderSource):
        return {}
    try:
        with Image.open(folder.path(0), formats=FORMATS) as image:
            metadata = json.loads(image.info.get(CHUNK, "{}"))
    except (OSError, ValueError, TypeError):
        return {}
    return metadata if isinstance(metadata, dict) else {}
