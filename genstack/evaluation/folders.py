"""Two folders of pictures, real and fake, as sets; and pair by pair where both have the same names."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from genstack.data import ImageData
from genstack.data.images import FORMATS
from genstack.data.source import Source
from genstack.data.sources.folder import FolderSource
from genstack.errors import UserError
from genstack.evaluation import sets
from genstack.evaluation.card import Card
from genstack.evaluation.extractor import Extractor
from genstack.evaluation.process_group import Columns, ProcessGroup
from genstack.evaluation.reconstructions import closeness, judge_closeness, split
from genstack.evaluation.reference import Reference
from genstack.losses.perceptual import LPIPS

CHUNK = "genstack"  # the text chunk of a PNG in which `genstack sample` says how it was drawn
SHOWN = 5  # unreadable pictures in a message


def opened(name: str) -> FolderSource:
    """A folder that is there and holds pictures.

    Raises:
        UserError: it does not.
    """
    if not Path(name).expanduser().exists():
        raise UserError(f"folder {name} is not there; give two folders of pictures, or one run")
    return FolderSource(name)


def common_size(folders: Sequence[FolderSource]) -> tuple[int, int, int]:
    """Channels, height and width that all pictures of these folders have.

    Raises:
        UserError: sizes differ, or pictures cannot be read; these are named.
    """
    sizes: dict[tuple[int, int], str] = {}
    grey, unreadable = True, []
    for folder in folders:
        for number in range(len(folder)):
            try:
                stored = folder.stored(number)
            except UserError as error:
                unreadable.append(str(error))
                continue
            sizes.setdefault((stored.height, stored.width), str(folder.path(number)))
            grey = grey and stored.mode[0] in "1LIF" and "A" not in stored.mode
            if len(sizes) > 1:
                (one, other), (path, other_path) = sizes, sizes.values()
                raise UserError(
                    f"sizes differ: {path} is {one[0]} x {one[1]}, {other_path} {other[0]} x {other[1]}; "
                    f"--data.resolution {one[0]},{one[1]} crops and scales all alike"
                )
    if unreadable:
        raise incomplete(unreadable, sum(map(len, folders)))
    (height, width), *_ = sizes
    return (1 if grey else 3), height, width


def incomplete(unreadable: Sequence[str], count: int) -> UserError:
    """What to say where some of `count` pictures cannot be read: numbers are of all, and pairs stay pairs."""
    shown = "; ".join(unreadable[:SHOWN]) + f"; and {len(unreadable) - SHOWN} more" * (
        len(unreadable) > SHOWN
    )
    return UserError(
        f"{len(unreadable)} of {count} pictures cannot be read, and all have to be for a number: {shown}; "
        f"mend or remove them (`genstack data check FOLDER` lists all)"
    )


@dataclass
class Folders:
    """A folder of real and one of fake pictures.

    Args:
        real: the real ones.
        fake: the fake ones.
        extractors: networks to compare both sets by.
        perceptual: distances of each picture from its original, by name.
        device: of the networks.
    """

    real: ImageData
    fake: ImageData
    extractors: Sequence[Extractor]
    perceptual: Mapping[str, LPIPS]
    device: str

    @cached_property
    def sides(self) -> tuple[Reference, Reference]:
        """All pictures of both."""
        return Reference(self.real, "all"), Reference(self.fake, "all")

    @property
    def paired(self) -> bool:
        """Whether both folders hold pictures of the same names, the fake ones not drawn from a prior."""
        if drawn_by(self.fake.opened):
            return False
        keys = [{side.key(index) for index in range(len(side))} for side in self.sides]
        return keys[0] == keys[1]

    def look(self, together: ProcessGroup, batch_size: int) -> list[Columns]:
        """What the networks see in either; of pairs also how close they are."""
        real, fake = self.sides

        def pairs(indices: Sequence[int]) -> Columns:
            images, others = (self.images(side, indices) for side in (real, fake))
            found = closeness(images, others, self.perceptual, self.device)
            for name, seen in (("real:", images), ("fake:", others)):
                found |= {name + key: view for key, view in sets.look(self.extractors, seen).items()}
            return found

        if self.paired:
            return [together.columns(len(real), batch_size, pairs)]

        def one(side: Reference, indices: Sequence[int]) -> Columns:
            return sets.look(self.extractors, self.images(side, indices))

        return [together.columns(len(side), batch_size, partial(one, side)) for side in self.sides]

    def images(self, side: Reference, indices: Sequence[int]) -> Float[Tensor, "b c H W"]:
        """Some pictures of a side, none in place of another.

        Raises:
            UserError: some cannot be read; all of these, of both sides, are named.
        """
        batch = side.read(indices)
        if not batch.skipped:
            return batch.images
        unreadable = [reason for each in self.sides for reason in damaged(each)]
        raise incomplete(unreadable, sum(map(len, self.sides)))

    def judge(self, card: Card, found: Sequence[Columns]) -> None:
        """Write into a card what follows."""
        if self.paired:
            judge_closeness(card, found[0])
        real, fake = split(found[0]) if self.paired else found
        sets.compare(card, self.extractors, real, fake)


def damaged(side: Reference) -> Iterator[str]:
    """Why pictures of a side cannot be read, of each that cannot."""
    for number in side.numbers:
        try:
            side.data.opened.image(number, side.data.preprocessing)
        except UserError as error:
            yield str(error)


def drawn_by(folder: Source) -> dict[str, Any]:
    """How `genstack sample` drew the first picture of a folder, as its file says; {} where it does not."""
    if not isinstance(folder, FolderSource):
        return {}
    try:
        with Image.open(folder.path(0), formats=FORMATS) as picture:
            told = json.loads(picture.info.get(CHUNK, "{}"))
    except (OSError, ValueError, TypeError):
        return {}
    return told if isinstance(told, dict) else {}
