"""The metric cards that `genstack evaluate` leaves in a run, as rows of a table."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genstack.evaluation.card import EVALUATION
from genstack.report.absent import Absent

LARGEST = 2**24  # bytes of a card
FOLDERS = ("*.json", f"{EVALUATION}/*.json")


@dataclass(frozen=True)
class Number:
    """A number of a card; what is infinite is text.

    Args:
        name: of the metric.
        value: of it.
        unit: of the value.
        interval: where it lies with 95 % confidence; () where nobody has said.
        real: the same number for real images, or None.
        meaning: what was computed.
        better: which way is better.
    """

    name: str
    value: float | str
    unit: str
    interval: tuple[float | str, ...]
    real: float | str | None
    meaning: str
    better: str


@dataclass(frozen=True)
class Card:
    """What was measured at one time.

    Args:
        file: where the card lies in the run.
        kind: of what was judged.
        numbers: in their order.
        skipped: metrics that were not measured, and why.
        protocol: how, as text.
    """

    file: str
    kind: str
    numbers: list[Number]
    skipped: list[tuple[str, str]]
    protocol: str


def cards(folder: Path) -> list[Card] | Absent:
    """Every card of a run, by the names of their files."""
    files = [file for pattern in FOLDERS for file in sorted(folder.glob(pattern)) if file.is_file()]
    found = [card for file in files if (card := read(file, folder)) is not None]
    return found or Absent("there is no metric card yet")


def read(file: Path, folder: Path) -> Card | None:
    """The card in a file; None where it is something else."""
    if file.stat().st_size > LARGEST:
        return None
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
        return Card(
            file.relative_to(folder).as_posix(),
            str(plain["kind"]),
            [number(entry) for entry in plain["numbers"]],
            [(str(entry["name"]), str(entry["reason"])) for entry in plain.get("skipped", [])],
            json.dumps(plain["protocol"], indent=2, ensure_ascii=False),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def number(entry: dict[str, Any]) -> Number:
    """A number of a card."""
    real, interval = entry.get("real"), entry.get("interval") or ()
    return Number(
        str(entry["name"]),
        plain(entry["value"]),
        str(entry.get("unit", "")),
        tuple(plain(end) for end in interval),
        None if real is None else plain(real),
        str(entry.get("meaning", "")),
        str(entry.get("better", "")),
    )


def plain(value: Any) -> float | str:
    """A number, or text where it is none."""
    return float(value) if isinstance(value, int | float) else str(value)
