"""Logged metrics of a run from `metrics.jsonl`, which may be damaged."""

import json
from dataclasses import dataclass
from pathlib import Path

from genstack.report.missing import Missing

Points = list[tuple[int, float]]


@dataclass(frozen=True)
class History:
    """Logged metrics.

    Args:
        series: (step, value) in file order, by metric name; values may be infinite or NaN.
        damaged: number of unreadable lines.
    """

    series: dict[str, Points]
    damaged: int = 0

    @property
    def step(self) -> int:
        """Last logged step."""
        return max((points[-1][0] for points in self.series.values()), default=0)

    @property
    def validation_step(self) -> int:
        """Step of the last validation; 0 before the first."""
        steps = [points[-1][0] for name, points in self.series.items() if name.startswith("val/")]
        return max(steps, default=0)

    @property
    def validation_metrics(self) -> dict[str, float]:
        """Metrics of the last validation, by name."""
        last = {name: points[-1] for name, points in self.series.items() if name.startswith("val/")}
        return {name: value for name, (step, value) in last.items() if step == self.validation_step}


def read(path: Path) -> History | Missing:
    """Read the metrics of a file."""
    if not path.is_file():
        return Missing(f"{path.name} not found: nothing was logged")
    series: dict[str, Points] = {}
    damaged = 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        metrics = parse(line)
        if metrics is None or "step" not in metrics:
            damaged += 1
            continue
        step = int(metrics.pop("step"))
        for name, value in metrics.items():
            series.setdefault(name, []).append((step, value))
    return History(series, damaged) if series else Missing(f"{path.name} has no metrics yet")


def parse(line: str) -> dict[str, float] | None:
    """Parse the metrics of a line, with infinite values as text; None if it is invalid."""
    try:
        return {str(name): float(value) for name, value in json.loads(line).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
