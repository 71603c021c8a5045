"""A run as a report finds it: each of its parts, or why it is not there."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from genstack.data import Batch, ImageData
from genstack.model import Model
from genstack.report.absent import Absent, attempt
from genstack.report.card import Card
from genstack.report.history import History
from genstack.report.picture import Picture, whole

MOST_HELD_OUT = 256  # images to reconstruct and to encode
MOST_SHEETS = 3
WIDEST = 1200  # pixels of a sheet


@dataclass
class Subject:
    """A run and what is known of it.

    Args:
        folder: where it lies.
        config: every setting.
        history: its numbers as it went.
        model: what it hands on.
        data: the images that it was trained on.
        cards: what was measured of it.
    """

    folder: Path
    config: dict[str, Any] | Absent
    history: History | Absent
    model: Model | Absent
    data: ImageData | Absent
    cards: Sequence[Card] | Absent

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.resolve().name

    @cached_property
    def held_out(self) -> Batch | Absent:
        """Images that were laid aside."""
        if isinstance(self.data, Absent):
            return Absent(f"the images cannot be reached any more ({self.data.reason})")
        data = self.data
        return attempt(lambda: data.examples("validation", MOST_HELD_OUT))

    @property
    def stage(self) -> str:
        """What was trained."""
        config = {} if isinstance(self.config, Absent) else self.config
        prior = self.model.prior is not None if self.model else "compressor" in config
        return "prior" if prior else "compressor"

    @property
    def measured(self) -> tuple[int, dict[str, float]]:
        """What was measured, and at which step: of the model that is kept, or else the latest."""
        made = self.model.made if self.model else {}
        step, measured = made.get("step"), made.get("measured")
        if isinstance(step, int) and isinstance(measured, dict) and measured:
            numbers = {name: value for name, value in measured.items() if isinstance(value, int | float)}
            return step, {name: float(value) for name, value in numbers.items()}
        if self.history:
            return self.history.validated, self.history.measured
        return 0, {}

    def sheets(self) -> list[tuple[str, Picture]]:
        """The first, a middle and the last picture that the training made, by the step of each."""
        files = [file for file in sorted((self.folder / "images").glob("*.png")) if file.stem.isdigit()]
        if len(files) > MOST_SHEETS:
            files = [files[0], files[len(files) // 2], files[-1]]
        return [(file.stem.lstrip("0") or "0", picture) for file in files if (picture := sheet(file))]


def sheet(file: Path) -> Picture | None:
    """A picture that training made; None where it cannot be read."""
    try:
        with Image.open(file, formats=["PNG"]) as image:
            if image.width * image.height > 2**25:
                return None
            image.thumbnail((WIDEST, 4 * WIDEST))
            return whole(image.convert("RGB"), f"after {file.stem.lstrip('0')} steps")
    except Exception:  # damaged files make Pillow raise nearly anything
        return None
