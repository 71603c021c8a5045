"""Curves and histograms as shapes in a box of 320 x 190, drawn as SVG by a template."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, isfinite, log10

from genstack.report.history import Points

LEFT, RIGHT, TOP, BOTTOM = 46.0, 312.0, 10.0, 166.0  # of the area inside the axes
MAX_POINTS = 400  # of a curve; more are not visible
MAX_DOTS = 40  # of a curve with a dot at each point
ROWS = 24  # of the table below a chart
MAX_DIGITS = 16  # of a label; floats have no more
DECADES = 2.0  # range of positive values from which an axis is logarithmic


@dataclass(frozen=True)
class Curve:
    """Values to draw.

    Args:
        name: name of the curve.
        points: step and value.
        shade: index of the page's colour.
        dashed: draw dashes, for readers who do not see colours.
    """

    name: str
    points: Points
    shade: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Tick:
    """A position on an axis and its label."""

    place: float
    label: str


@dataclass(frozen=True)
class Dot:
    """A point with a tooltip."""

    across: float
    up: float
    label: str


@dataclass(frozen=True)
class Line:
    """A curve as an SVG path, with its dots and its last point."""

    name: str
    shade: int
    dashed: bool
    path: str
    dots: tuple[Dot, ...]
    step: int
    last: float


@dataclass(frozen=True)
class Chart:
    """A chart.

    Args:
        title: title of the chart.
        note: beside the title.
        lines: the curves.
        across: ticks of the horizontal axis.
        up: ticks of the vertical axis.
        steps: steps in the table of values.
        rows: a value of each curve at each of these steps; None if there is none.
    """

    title: str
    note: str
    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    steps: tuple[int, ...] = ()
    rows: tuple[tuple[float | None, ...], ...] = ()


@dataclass(frozen=True)
class Axis:
    """Map values in [low, high] to positions in [begin, end], on a linear or logarithmic scale."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Return the position of a value."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = log10(low), log10(high), log10(value)
        return self.begin + (value - low) / (high - low) * (self.end - self.begin)

    def ticks(self, count: int) -> tuple[Tick, ...]:
        """Return about `count` ticks at round values."""
        values = (
            decades(self.low, self.high) if self.logarithmic else round_values(self.low, self.high, count)
        )
        return tuple(
            Tick(round(self.place(value), 1), label)
            for value, label in zip(values, tick_labels(values), strict=True)
        )


def chart(title: str, curves: Sequence[Curve]) -> Chart | None:
    """Draw curves in one box; None if no value is finite."""
    finite = [
        replace(curve, points=[point for point in curve.points if isfinite(point[1])]) for curve in curves
    ]
    finite = [curve for curve in finite if curve.points]
    if not finite:
        return None
    values = [value for curve in finite for _, value in curve.points]
    steps = [step for curve in finite for step, _ in curve.points]
    across = Axis(*pad(float(min(steps)), float(max(steps)), 0.0), LEFT, RIGHT)
    logarithmic = min(values) > 0 and log10(max(values) / min(values)) >= DECADES
    low, high = (min(values), max(values)) if logarithmic else pad(min(values), max(values), 0.06)
    up = Axis(low, high, BOTTOM, TOP, logarithmic)
    omitted = sum(len(curve.points) for curve in curves) - len(values)
    notes = ["logarithmic scale"] if logarithmic else []
    if omitted:
        notes.append(f"{omitted} values that are not finite are omitted")
    shown = evenly_spaced(sorted(set(steps)), ROWS)
    tables = [dict(curve.points) for curve in finite]
    return Chart(
        title,
        ", ".join(notes),
        tuple(line(curve, across, up) for curve in finite),
        across.ticks(5),
        up.ticks(5),
        tuple(shown),
        tuple(tuple(table.get(step) for table in tables) for step in shown),
    )


def line(curve: Curve, across: Axis, up: Axis) -> Line:
    """Draw a curve."""

    def place(step: int, value: float) -> tuple[float, float]:
        return across.place(float(step)), up.place(value)

    path = "M" + " L".join("{:.1f},{:.1f}".format(*place(*point)) for point in thin(curve.points))
    marked = curve.points if len(curve.points) <= MAX_DOTS else curve.points[-1:]
    dots = []
    for step, value in marked:
        x, y = place(step, value)
        dots.append(Dot(round(x, 1), round(y, 1), f"{curve.name}, step {step}: {value:.6g}"))
    return Line(curve.name, curve.shade, curve.dashed, path, tuple(dots), *curve.points[-1])


def histogram(title: str, shares: Sequence[float], uniform: float) -> Chart:
    """Draw shares in descending order, and a line at the share of a uniform distribution."""
    across = Axis(0.0, float(len(shares)), LEFT, RIGHT)
    up = Axis(0.0, max([*shares, uniform]) * 1.06, BOTTOM, TOP)
    width = max(1, ceil(len(shares) / MAX_POINTS))  # average codes that share a pixel
    path = f"M{LEFT},{BOTTOM}"
    for first in range(0, len(shares), width):
        part = shares[first : first + width]
        height = up.place(sum(part) / len(part))
        begin, end = across.place(float(first)), across.place(float(first + len(part)))
        path += f" L{begin:.1f},{height:.1f} L{end:.1f},{height:.1f}"
    path += f" L{RIGHT},{BOTTOM} Z"
    level = up.place(uniform)
    lines = (
        Line("share of each code, most frequent first", 0, False, path, (), len(shares), shares[-1]),
        Line("uniform", 2, True, f"M{LEFT},{level:.1f} L{RIGHT},{level:.1f}", (), len(shares), uniform),
    )
    percent = round_values(up.low * 100, up.high * 100, 5)
    ticks = tuple(Tick(round(up.place(value / 100), 1), f"{value:.3g}%") for value in percent)
    return Chart(title, "", lines, across.ticks(5), ticks)


def thin(points: Points) -> Points:
    """Keep the lowest and the highest of every few points, at most about MAX_POINTS."""
    if len(points) <= MAX_POINTS:
        return points
    width = ceil(len(points) / (MAX_POINTS / 2))
    kept: Points = []
    for first in range(0, len(points), width):
        part = points[first : first + width]
        kept += sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])})
    return kept


def evenly_spaced(steps: Sequence[int], count: int) -> list[int]:
    """Return about `count` of the steps, with the first and the last."""
    if len(steps) <= count:
        return list(steps)
    return [steps[round(number * (len(steps) - 1) / (count - 1))] for number in range(count)]


def pad(low: float, high: float, share: float) -> tuple[float, float]:
    """Pad a range at both ends, so that it is not empty."""
    padding = (high - low) * share if low != high else abs(low) * 0.1 or 1.0
    return low - padding, high + padding


def round_values(low: float, high: float, count: int) -> list[float]:
    """Return about `count` multiples of 1, 2 or 5 times a power of ten in a range."""
    power = 10.0 ** floor(log10((high - low) / count))
    pitches = (factor * power for factor in (1, 2, 5, 10))
    pitch = next(pitch for pitch in pitches if floor(high / pitch) - ceil(low / pitch) <= count)
    return [round(number * pitch, 12) for number in range(ceil(low / pitch), floor(high / pitch) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Return at most about five powers of ten in a range."""
    first, last = ceil(log10(low)), floor(log10(high))
    return [10.0**power for power in range(first, last + 1, max(1, ceil((last - first) / 5)))]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Return short labels with enough digits to be distinct."""
    for digits in range(3, MAX_DIGITS):
        labels = [tick_label(value, digits) for value in values]
        if len(set(labels)) == len(set(values)):
            break
    return labels


def tick_label(value: float, digits: int) -> str:
    """Return a short label of a value."""
    if abs(value) >= 10_000:
        for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return f"{value / size:.{digits}g}{letter}"
    return f"{value:.{max(4, digits)}g}".replace("e-0", "e-")
