"""What a user asks of samples, from the words of the command line."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from genstack.data.framing import load
from genstack.data.images import Preprocessing
from genstack.data.sources.folder import FolderSource
from genstack.errors import UserError
from genstack.inputs import Prompts

LARGEST = 2**24  # bytes of a file of captions


@dataclass(frozen=True)
class Shown:
    """What images shall show, as the command line says it.

    Args:
        classes: class names, which may hold commas, or labels like `#3`, separated by commas, drawn in turn;
            all if left out.
        caption: what every image shall show, in words.
        captions: file with a caption on each line, drawn in turn.
        condition_images: folder of pictures that steer the images, in turn: segmentation maps, edges, small
            pictures to enlarge, whatever the prior was trained on.
        coordinates: where each image lies in a larger picture: top,left,bottom,right as shares of its height
            and width, such as 0,0,0.5,0.5 for its upper left quarter; several, in quotes, in turn.
    """

    classes: str = ""
    caption: str = ""
    captions: str = ""
    condition_images: str = ""
    coordinates: str = ""

    def wishes(self, preprocessing: Preprocessing, count: int, classes: Sequence[str]) -> Prompts:
        """Prompts for up to `count` images.

        Args:
            preprocessing: of condition images.
            count: of images.
            classes: the names that there are.

        Raises:
            UserError: a file or folder cannot be read, or a number is none.
        """
        if self.caption and self.captions:
            raise UserError(
                "--caption and --captions were both given; put all captions into the file, or leave one out"
            )
        folder = FolderSource(existing(self.condition_images)) if self.condition_images else None
        shown = range(min(count, len(folder))) if folder else range(0)
        return Prompts(
            named(self.classes, classes),
            lines(Path(self.captions)) if self.captions else (self.caption,) if self.caption.strip() else (),
            torch.stack([load(folder.path(index), preprocessing) for index in shown]) if folder else None,
            tuple(folder.key(index) for index in shown) if folder else (),
            tuple(crop(edges) for edges in self.coordinates.replace(";", " ").split()),
        )


def named(text: str, classes: Sequence[str]) -> tuple[str, ...]:
    """The names in a list with commas; names that have commas themselves come before their parts.

    Raises:
        UserError: there is none.
    """
    words, found = text.split(","), []
    most = 1 + max((name.count(",") for name in classes), default=0)
    while words:
        starts = [",".join(words[:count]).strip() for count in range(min(most, len(words)), 0, -1)]
        found.append(next((name for name in starts if name in classes), starts[-1]))
        words = words[found[-1].count(",") + 1 :]
    names = tuple(filter(None, found))
    if text and not names:
        raise UserError(f"--classes {text} names no class; give names, or labels like #3, or leave it out")
    return names


def existing(folder: str) -> str:
    """A folder that is there.

    Raises:
        UserError: it is not.
    """
    if not Path(folder).expanduser().is_dir():
        raise UserError(f"--condition-images {folder} is no folder; give the folder that holds the pictures")
    return folder


def lines(path: Path) -> tuple[str, ...]:
    """The captions in a file, one a line; empty lines are left out."""
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"--captions {path} has over {LARGEST} bytes; give a smaller file")
        found = tuple(filter(None, map(str.strip, path.read_text(encoding="utf-8-sig").split("\n"))))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--captions {path} cannot be read as text (UTF-8): {reason}") from error
    if not found:
        raise UserError(f"--captions {path} holds no captions; write one on each line")
    return found


def crop(text: str) -> tuple[float, float, float, float]:
    """`top,left,bottom,right` as numbers."""
    try:
        top, left, bottom, right = (float(edge) for edge in text.split(","))
    except ValueError:
        raise UserError(
            f"--coordinates {text} are no four numbers; give top,left,bottom,right as shares: 0,0,0.5,0.5"
        ) from None
    return top, left, bottom, right
