"""A sweep: options of sampling with several values each, and all their combinations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from PIL import Image

from genstack.data.sheet import table


@dataclass(frozen=True)
class Sweep:
    """Options with several values each.

    Args:
        axes: the values of each, by its name; without any there is one cell, which changes nothing.
    """

    axes: Mapping[str, Sequence[Any]]

    @property
    def cells(self) -> dict[str, dict[str, Any]]:
        """Every combination by its name, the last axis fastest."""
        return cells_of(self.axes)

    def table(self, pages: Sequence[Image.Image]) -> Image.Image:
        """A page for each cell, in their order, as one table: the last axis from left to right."""
        if not self.axes:
            return pages[0]
        *down, across = self.axes
        columns = [f"{across} {value}" for value in self.axes[across]]
        rows = [
            name.replace("=", " ").replace(",", "\n")
            for name in cells_of({name: self.axes[name] for name in down})
        ]
        starts = range(0, len(pages), len(columns))
        return table([pages[first : first + len(columns)] for first in starts], rows, columns)


def cells_of(axes: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """All combinations of values by name; without axes the one that says nothing."""
    combinations = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    return {",".join(f"{name}={value}" for name, value in one.items()): one for one in combinations}
