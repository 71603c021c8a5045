"""The numbers of a run as it went, read from `metrics.jsonl`, which may be cut off or not ours."""

import json
from dataclasses import dataclass
from pathlib import Path

from genstack.report.absent import Absent

Points = list[tuple[int, float]]


@dataclass(frozen=True)
class History:
    """Numbers by name, each with the steps that it was logged at.

    Args:
        series: (step, value) in the order of the file; a value may be infinite or undefined.
        damaged: lines that could not be read.
    """

    series: dict[str, Points]
    damaged: int = 0

    @property
    def step(self) -> int:
        """The last one that was logged."""
        return max((points[-1][0] for points in self.series.values()), default=0)

    @property
    def validated(self) -> int:
        """The step of the last validation; 0 where there was none."""
        held_out = [points[-1][0] for name, points in self.series.items() if name.startswith("val/")]
        return max(held_out, default=0)

    @property
    def measured(self) -> dict[str, float]:
        """What the last validation measured, by name."""
        last = {name: points[-1] for name, points in self.series.items() if name.startswith("val/")}
        return {name: value for name, (step, value) in last.items() if step == self.validated}


def read(path: Path) -> History | Absent:
    """The numbers of a file."""
    if not path.is_file():
        return Absent(f"there is no {path.name}: nothing was logged")
    series: dict[str, Points] = {}
    damaged = 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        numbers = numbers_of(line)
        step = None if numbers is None else numbers.pop("step", None)
        if numbers is None or step is None:
            damaged += 1
            continue
        for name, value in numbers.items():
            series.setdefault(name, []).append((int(step), value))
    return History(series, damaged) if series else Absent(f"{path.name} has no numbers yet")


def numbers_of(line: str) -> dict[str, float] | None:
    """The numbers of a line; None where it is no such line. Infinite ones are written as text."""
    try:
        found = json.loads(line)
        return {str(name): float(value) for name, value in found.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
