"""Metric cards that `genstack evaluate` saved in a run."""

import json
from pathlib import Path

from genstack.evaluation.card import EVALUATION, Card
from genstack.report.missing import Missing

MAX_BYTES = 2**24
PATTERNS = ("*.json", f"{EVALUATION}/*.json")


def cards(folder: Path) -> dict[str, Card] | Missing:
    """Read every card of a run, by file name."""
    files = [file for pattern in PATTERNS for file in sorted(folder.glob(pattern)) if file.is_file()]
    found = {file.relative_to(folder).as_posix(): card for file in files if (card := read(file)) is not None}
    return found or Missing("there is no metric card yet")


def read(file: Path) -> Card | None:
    """Read a card; None if the file is something else."""
    if file.stat().st_size > MAX_BYTES:
        return None
    try:
        return Card.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
