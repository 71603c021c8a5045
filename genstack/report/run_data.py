"""Parts of a run for a report, each with the reason if it is missing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from genstack.data import Batch, ImageData
from genstack.evaluation.card import EVALUATION, Card
from genstack.model import Model
from genstack.report.history import History
from genstack.report.missing import Missing, attempt
from genstack.report.picture import Picture, embed

MAX_HELD_OUT = 256  # images to reconstruct and to encode
MAX_SHEETS = 3
SHEET_WIDTH = 1200  # pixels
MAX_CARD_BYTES = 2**24
CARDS = ("*.json", f"{EVALUATION}/*.json")


@dataclass
class RunData:
    """A run.

    Args:
        folder: run folder.
        config: every setting.
        history: logged metrics.
        model: the trained model.
        data: the training data.
        cards: metric cards by file name.
    """

    folder: Path
    config: dict[str, Any] | Missing
    history: History | Missing
    model: Model | Missing
    data: ImageData | Missing
    cards: Mapping[str, Card] | Missing

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.folder.resolve().name

    @cached_property
    def held_out(self) -> Batch | Missing:
        """Held-out images."""
        if isinstance(self.data, Missing):
            return Missing(f"the images are not available ({self.data.reason})")
        return attempt(lambda data: data.examples("validation", MAX_HELD_OUT), self.data)

    @property
    def stage(self) -> str:
        """Compressor or prior."""
        config = {} if isinstance(self.config, Missing) else self.config
        prior = self.model.prior is not None if self.model else "compressor" in config
        return "prior" if prior else "compressor"

    @property
    def validation_results(self) -> tuple[int, dict[str, float]]:
        """Step and validation metrics of the saved model, or the latest without one."""
        made = self.model.metadata if self.model else {}
        step, measured = made.get("step"), made.get("measured")
        if isinstance(step, int) and isinstance(measured, dict) and measured:
            return step, {
                name: float(value) for name, value in measured.items() if isinstance(value, int | float)
            }
        return (self.history.validation_step, self.history.validation_metrics) if self.history else (0, {})

    def sheets(self, name: str = "") -> list[tuple[str, Picture]]:
        """Return the first, a middle and the last picture of the training with a name, by step.

        Args:
            name: "" for image sheets; `codes` for charts of the codebook.
        """
        files = self._pictures().get(name, [])
        if len(files) > MAX_SHEETS:
            files = [files[0], files[len(files) // 2], files[-1]]
        steps = [file.stem.rpartition("-")[2].lstrip("0") or "0" for file in files]
        return [
            (step, picture) for step, file in zip(steps, files, strict=True) if (picture := sheet(file, step))
        ]

    @property
    def charts(self) -> list[str]:
        """Names of further pictures of the training."""
        return sorted(filter(None, self._pictures()))

    def _pictures(self) -> dict[str, list[Path]]:
        """Pictures that the training wrote by name, in the order of their steps."""
        found: dict[str, list[Path]] = {}
        for file in sorted((self.folder / "images").glob("*.png")):
            name, _, step = file.stem.rpartition("-")
            if step.isdigit():
                found.setdefault(name, []).append(file)
        return found


def sheet(file: Path, step: str) -> Picture | None:
    """Read an image sheet of the training; None if it is unreadable."""
    try:
        with Image.open(file, formats=["PNG"]) as image:
            if image.width * image.height > 2**25:
                return None
            image.thumbnail((SHEET_WIDTH, 4 * SHEET_WIDTH))
            return embed(image.convert("RGB"), f"after {step} steps")
    except Exception:  # Pillow raises many types for damaged files
        return None


def read_cards(folder: Path) -> dict[str, Card] | Missing:
    """Read every card of a run, by file name."""
    files = [file for pattern in CARDS for file in sorted(folder.glob(pattern)) if file.is_file()]
    found = {
        file.relative_to(folder).as_posix(): card for file in files if (card := read_card(file)) is not None
    }
    return found or Missing("there is no metric card yet")


def read_card(file: Path) -> Card | None:
    """Read a card; None if the file is something else."""
    if file.stat().st_size > MAX_CARD_BYTES:
        return None
    try:
        return Card.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
