"""The metric card: every number with the protocol behind it, as JSON and as lines to read."""

import json
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import torch

from genstack.atomic import replacing
from genstack.evaluation.resampling import LEVEL, SEED, Interval

FORMAT_VERSION = 1
EVALUATION = "evaluation"  # the folder of cards
PACKAGES = (
    "genstack-images",
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "lpips",
    "scikit-learn",
    "torch-fidelity",
)


@dataclass(frozen=True)
class Number:
    """One result.

    Args:
        name: of the metric.
        value: over all images.
        meaning: what was computed, in a few words.
        better: which way is better; "" where neither is.
        interval: where the value lies with 95 % confidence, by resampling images; None where nothing was.
        real: the same number for real images, where there is one: of a distance that of two halves of the
            real set, which no model can be expected to beat.
        unit: of the value.
    """

    name: str
    value: float
    meaning: str
    better: Literal["higher", "lower", ""] = ""
    interval: Interval | None = None
    real: float | None = None
    unit: str = ""


@dataclass
class Card:
    """The results of one evaluation.

    Args:
        kind: of what was judged: compressor, prior or images.
        protocol: how; everything that changes a number.
        numbers: in the order to be read.
        refused: names of the numbers that there are not, and why.
        images: lists of images that stand out, by the name of the list.
    """

    kind: str
    protocol: dict[str, Any]
    numbers: list[Number] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    images: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As JSON has it; what is infinite becomes text."""
        return finite(
            {
                "format_version": FORMAT_VERSION,
                "kind": self.kind,
                "numbers": [asdict(number) for number in self.numbers],
                "refused": [{"name": name, "reason": reason} for name, reason in self.refused.items()],
                "images": self.images,
                "protocol": self.protocol,
            }
        )

    def save(self, path: Path) -> None:
        """Write the card; it appears whole."""
        text = json.dumps(self.plain(), indent=2, ensure_ascii=False, allow_nan=False)
        with replacing(path) as partial:
            partial.write_text(text + "\n", encoding="utf-8")

    def lines(self) -> Iterable[str]:
        """One line for each number, and for each that was refused."""
        names = [*(number.name for number in self.numbers), *self.refused]
        width = max(map(len, names), default=0)
        for number in self.numbers:
            parts = [f"{number.name:{width}}  {short(number.value)}{number.unit and ' ' + number.unit}"]
            if number.interval is not None:
                parts.append("[" + ", ".join(map(short, number.interval)) + "]")
            if number.real is not None:
                parts.append(f"real images: {short(number.real)}")
            yield "  ".join(parts)
        for name, reason in self.refused.items():
            yield f"{name:{width}}  not measured: {reason}"


def short(value: float) -> str:
    """Four digits."""
    return f"{value:.4g}" if isfinite(value) and abs(value) < 1000 else f"{value:.1f}"


def finite(value: Any) -> Any:
    """A plain value whose infinite numbers are text, which JSON can hold."""
    if isinstance(value, dict):
        return {name: finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def machine() -> dict[str, Any]:
    """What computed the numbers, and how."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "statistics": "float64",
        "torch_build": torch.version.cuda or "cpu",
        "intervals": {"confidence": LEVEL, "seed": SEED, "by": "resampling images"},
    }
