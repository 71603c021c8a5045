"""Metric cards: numbers with their protocol, as JSON and as text."""

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from genstack.atomic import atomic_path
from genstack.evaluation.metrics.intervals import CONFIDENCE, SEED, Interval, mean_interval

FORMAT_VERSION = 1
EVALUATION = "evaluation"  # the folder of cards
LIBRARIES = ["torch", "torchvision", "numpy", "pillow", "lpips", "scikit-learn", "torch-fidelity"]

Direction = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class Number:
    """The value of one metric.

    Args:
        name: name of the metric.
        value: value over all images.
        meaning: how it was computed, in a few words.
        better: the better direction; "" for neither.
        interval: 95 % confidence interval over images; None if there is none.
        real: the same metric of real images; for a distance, between two halves of the real images, which no
            model can be expected to beat.
        unit: unit of the value.
    """

    name: str
    value: float
    meaning: str
    better: Direction = ""
    interval: Interval | None = None
    real: float | None = None
    unit: str = ""

    @classmethod
    def mean(
        cls,
        name: str,
        values: Tensor,
        meaning: str,
        better: Direction = "",
        unit: str = "",
        real: float | None = None,
    ) -> "Number":
        """Mean of one value per image, with its bootstrap interval."""
        values = values.double()
        return cls(name, float(values.mean()), meaning, better, mean_interval(values), real, unit)


@dataclass(frozen=True)
class Skipped:
    """A metric that was not measured.

    Args:
        name: name of the metric.
        reason: reason in a sentence.
    """

    name: str
    reason: str


@dataclass
class Card:
    """The results of one evaluation.

    Args:
        kind: compressor, prior or images.
        protocol: everything that changes a number.
        numbers: measured metrics in reading order.
        skipped: metrics that were not measured.
        images: lists of noteworthy images, by the name of the list.
    """

    kind: str
    protocol: dict[str, Any]
    numbers: list[Number]
    skipped: list[Skipped]
    images: dict[str, list[dict[str, Any]]]

    @classmethod
    def of(
        cls,
        kind: str,
        protocol: Mapping[str, Any],
        results: Iterable[Number | Skipped],
        images: Mapping[str, list[dict[str, Any]]],
    ) -> "Card":
        """Sort results into numbers and skipped metrics."""
        results = list(results)
        numbers = [result for result in results if isinstance(result, Number)]
        skipped = [result for result in results if isinstance(result, Skipped)]
        return cls(kind, dict(protocol), numbers, skipped, dict(images))

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> "Card":
        """Read what `save` wrote; raise ValueError, KeyError or TypeError for anything else."""
        numbers = [
            Number(
                str(entry["name"]),
                float(entry["value"]),
                str(entry["meaning"]),
                entry["better"],
                entry["interval"] and (float(entry["interval"][0]), float(entry["interval"][1])),
                None if entry["real"] is None else float(entry["real"]),
                str(entry["unit"]),
            )
            for entry in plain["numbers"]
        ]
        skipped = [Skipped(str(entry["name"]), str(entry["reason"])) for entry in plain["skipped"]]
        return cls(str(plain["kind"]), dict(plain["protocol"]), numbers, skipped, dict(plain["images"]))

    def save(self, path: Path) -> None:
        """Write the card as JSON, atomically; infinite values become text."""
        plain = to_json({"format_version": FORMAT_VERSION, **asdict(self)})
        text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)
        with atomic_path(path) as partial:
            partial.write_text(text + "\n", encoding="utf-8")

    def lines(self) -> Iterable[str]:
        """Format one line per number and per skipped metric."""
        names = [*(number.name for number in self.numbers), *(each.name for each in self.skipped)]
        width = max(map(len, names), default=0)
        for number in self.numbers:
            parts = [
                f"{number.name:{width}}  {format_value(number.value)}{number.unit and ' ' + number.unit}"
            ]
            if number.interval is not None:
                parts.append("[" + ", ".join(map(format_value, number.interval)) + "]")
            if number.real is not None:
                parts.append(f"real images: {format_value(number.real)}")
            yield "  ".join(parts)
        for each in self.skipped:
            yield f"{each.name:{width}}  not measured: {each.reason}"


def format_value(value: float) -> str:
    """Format a value with four digits."""
    return f"{value:.4g}" if isfinite(value) and abs(value) < 1000 else f"{value:.1f}"


def to_json(value: Any) -> Any:
    """Replace infinite and undefined floats by text, which JSON can hold."""
    if isinstance(value, dict):
        return {name: to_json(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(entry) for entry in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def environment() -> dict[str, Any]:
    """Return versions and settings that affect the numbers."""
    versions = {"python": platform.python_version()}
    for name in ["genstack-images", *LIBRARIES]:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "statistics": "float64",
        "torch_build": torch.version.cuda or "cpu",
        "intervals": {"confidence": CONFIDENCE, "seed": SEED, "by": "resampling images"},
    }
