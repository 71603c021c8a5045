"""Sweeps over sampling options: all combinations of several values each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from PIL import Image

from genstack.data.sheet import table


@dataclass(frozen=True)
class Sweep:
    """Values of sampling options by name; without axes there is one cell without changes."""

    axes: Mapping[str, Sequence[Any]]

    @property
    def cells(self) -> dict[str, dict[str, Any]]:
        """Combinations by name, the last axis fastest."""
        return combinations(self.axes)

    def table(self, pages: Sequence[Image.Image]) -> Image.Image:
        """Arrange one page per cell as a table, the last axis from left to right."""
        if not self.axes:
            return pages[0]
        *down, across = self.axes
        columns = [f"{across} {value}" for value in self.axes[across]]
        rows = [
            name.replace("=", " ").replace(",", "\n")
            for name in combinations({name: self.axes[name] for name in down})
        ]
        starts = range(0, len(pages), len(columns))
        return table([pages[first : first + len(columns)] for first in starts], rows, columns)


def combinations(axes: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """Combinations of values by name; without axes, one empty combination."""
    cells = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    return {",".join(f"{name}={value}" for name, value in one.items()): one for one in cells}
