"""Flags of prompts: classes, captions, condition images, coordinates."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import torch

from genstack.cli.parsing.paths import Place
from genstack.conditions.condition import Condition
from genstack.conditions.modality import PromptError
from genstack.data.images import Preprocessing
from genstack.data.sources.folder import FolderSource
from genstack.data.text import clean
from genstack.data.transforms import load
from genstack.errors import UserError
from genstack.inputs import ConditionInputs, Prompts

MAX_BYTES = 2**24  # of a file of captions
#: Flags by kind of prompt.
FLAGS = {
    "classes": "--classes",
    "captions": "--caption or --captions",
    "condition images": "--condition-images",
    "coordinates": "--coordinates",
}


@dataclass(frozen=True)
class PromptFlags:
    """Flags of prompts.

    Args:
        classes: class names, or labels like `#3`, separated by commas; several are cycled. Names may contain
            commas. All classes by default.
        caption: caption of every image.
        captions: file with a caption on each line; several are cycled.
        condition_images: folder of condition images, cycled, of the kind that the prior was trained on:
            segmentation maps, edges, small pictures to enlarge.
        coordinates: position of each image in a larger picture: top,left,bottom,right as shares of its height
            and width, such as 0,0,0.5,0.5 for the upper left quarter; several in quotes are cycled.
    """

    classes: str = ""
    caption: str = ""
    captions: Place = ""
    condition_images: Place = ""
    coordinates: str = ""

    def prompts(self, preprocessing: Preprocessing, count: int, classes: Sequence[str]) -> Prompts:
        """Read the prompts for up to `count` images.

        Args:
            preprocessing: preprocessing of condition images.
            count: number of images.
            classes: known class names.

        Raises:
            UserError: a file or folder cannot be read, or coordinates are invalid.
        """
        if self.caption and self.captions:
            raise UserError("--caption and --captions exclude each other; put all captions into the file")
        folder = condition_folder(self.condition_images) if self.condition_images else None
        shown = range(min(count, len(folder))) if folder else range(0)
        captions = (clean(self.caption),) if self.caption.strip() else ()
        return Prompts(
            class_names(clean(self.classes), classes),
            read_captions(Path(self.captions)) if self.captions else captions,
            torch.stack([load(folder.path(index), preprocessing) for index in shown]) if folder else None,
            tuple(clean(folder.key(index)) for index in shown) if folder else (),
            tuple(parse_crop(edges) for edges in self.coordinates.replace(";", " ").split()),
        )


def select_inputs(condition: Condition, prompts: Prompts, count: int) -> ConditionInputs:
    """Select the condition's inputs for `count` samples; errors name the flag."""
    try:
        return condition.modality.select(prompts, count)
    except PromptError as error:
        flag, own = FLAGS[error.kind], FLAGS.get(condition.modality.kind)
        advice = f"set {flag}" if error.missing else f"use {own} instead of {flag}"
        raise UserError(f"{error}; {advice if own else f'leave out {flag}'}") from error


def class_names(text: str, classes: Sequence[str]) -> tuple[str, ...]:
    """Split names at commas; a known name with commas takes precedence over its parts."""
    words, found = normalize("NFC", text).split(","), []
    most = 1 + max((name.count(",") for name in classes), default=0)
    while words:
        parts = [",".join(words[:count]) for count in range(min(most, len(words)), 0, -1)]
        starts = [start for part in parts for start in (part, part.strip())]
        found.append(next((name for name in starts if name in classes), starts[-1]))
        words = words[found[-1].count(",") + 1 :]
    names = tuple(filter(None, found))
    if text and not names:
        raise UserError(
            f"--classes '{text}' holds no class name; give names, or labels like #3, or leave it out"
        )
    return names


def condition_folder(folder: str) -> FolderSource:
    """Open the folder of --condition-images."""
    if not Path(folder).is_dir():
        raise UserError(f"--condition-images: folder '{folder}' not found; give the folder of the pictures")
    return FolderSource(folder)


def read_captions(path: Path) -> tuple[str, ...]:
    """Read captions, one per line; empty lines are skipped."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"--captions {path} is larger than {MAX_BYTES} bytes; give a smaller file")
        found = tuple(filter(None, map(str.strip, path.read_text(encoding="utf-8-sig").split("\n"))))
    except FileNotFoundError as error:
        raise UserError(f"--captions {path} not found") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--captions {path} cannot be read as text (UTF-8): {reason}") from error
    if not found:
        raise UserError(f"--captions {path} holds no captions; write one on each line")
    return found


def parse_crop(text: str) -> tuple[float, float, float, float]:
    """Parse `top,left,bottom,right`."""
    try:
        top, left, bottom, right = (float(edge) for edge in text.split(","))
    except ValueError:
        raise UserError(
            f"invalid --coordinates '{text}': expected top,left,bottom,right as shares, such as 0,0,0.5,0.5"
        ) from None
    return top, left, bottom, right
