"""Curves and bars as shapes in a box of 320 x 190, for a template to draw as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from genstack.report.history import Points

WIDTH, HEIGHT = 320.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 312.0, 10.0, 166.0  # of what the axes enclose
MOST_POINTS = 400  # of a curve; more cannot be told apart
MOST_DOTS = 40  # of a curve that has a dot at each point
ROWS = 24  # of the table below a chart
MOST_DIGITS = 16  # of a label; numbers of a computer have no more
DECADES = 2.0  # from which on an axis of positive numbers is logarithmic


@dataclass(frozen=True)
class Curve:
    """Numbers to draw.

    Args:
        name: of the curve.
        points: step and value.
        shade: which of the page's colours.
        dashed: drawn in dashes, to tell it from others without colours.
    """

    name: str
    points: Points
    shade: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Tick:
    """A place on an axis, and the number there."""

    place: float
    label: str


@dataclass(frozen=True)
class Dot:
    """A point that tells its numbers."""

    across: float
    up: float
    label: str


@dataclass(frozen=True)
class Line:
    """A curve as it is drawn."""

    name: str
    shade: int
    dashed: bool
    path: str
    dots: tuple[Dot, ...]
    step: int
    last: float


@dataclass(frozen=True)
class Chart:
    """All that a template needs to draw one.

    Args:
        title: what it shows.
        note: what to know beside it.
        lines: the curves.
        across: ticks of the lower axis.
        up: ticks of the left axis.
        steps: those of the table of values.
        rows: a value of each curve at each of these steps; None where there is none.
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
    """Numbers to places, from one end of the box to the other.

    Args:
        low: the number at the beginning.
        high: the number at the end.
        begin: where the axis begins.
        end: where it ends.
        logarithmic: whether equal ratios, rather than differences, lie equally far apart.
    """

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a number lies."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = log10(low), log10(high), log10(value)
        return self.begin + (value - low) / (high - low) * (self.end - self.begin)

    def ticks(self, count: int) -> tuple[Tick, ...]:
        """About `count` round numbers."""
        values = decades(self.low, self.high) if self.logarithmic else rounds(self.low, self.high, count)
        named = zip(values, labels(values), strict=True)
        return tuple(Tick(round(self.place(value), 1), name) for value, name in named)


def chart(title: str, curves: Sequence[Curve]) -> Chart | None:
    """Curves in one box; None where no number is finite."""
    finite = [
        Curve(curve.name, [point for point in curve.points if isfinite(point[1])], curve.shade, curve.dashed)
        for curve in curves
    ]
    finite = [curve for curve in finite if curve.points]
    if not finite:
        return None
    values = [value for curve in finite for _, value in curve.points]
    steps = [step for curve in finite for step, _ in curve.points]
    across = Axis(*around(float(min(steps)), float(max(steps)), 0.0), LEFT, RIGHT)
    logarithmic = min(values) > 0 and log10(max(values) / min(values)) >= DECADES
    low, high = (min(values), max(values)) if logarithmic else around(min(values), max(values), 0.06)
    up = Axis(low, high, BOTTOM, TOP, logarithmic)
    lost = sum(len(curve.points) for curve in curves) - len(values)
    notes = ["logarithmic scale"] * logarithmic + [f"{lost} values that are not finite are left out"] * bool(
        lost
    )
    shown = spread(sorted(set(steps)), ROWS)
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
    """A curve in a box."""
    places = [(across.place(float(step)), up.place(value)) for step, value in thin(curve.points)]
    path = "M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marked = curve.points if len(curve.points) <= MOST_DOTS else curve.points[-1:]
    dots = [
        Dot(
            round(across.place(float(step)), 1),
            round(up.place(value), 1),
            f"{curve.name}, step {step}: {value:.6g}",
        )
        for step, value in marked
    ]
    return Line(curve.name, curve.shade, curve.dashed, path, tuple(dots), *curve.points[-1])


def histogram(title: str, shares: Sequence[float], even: float) -> Chart:
    """Shares in falling order as steps, and a line at the share that each would have if all were even."""
    across, up = (
        Axis(0.0, float(len(shares)), LEFT, RIGHT),
        Axis(0.0, max([*shares, even]) * 1.06, BOTTOM, TOP),
    )
    width = max(1, ceil(len(shares) / MOST_POINTS))  # a step for each few where no screen could show each
    path = f"M{LEFT},{BOTTOM}"
    for first in range(0, len(shares), width):
        some = shares[first : first + width]
        height = up.place(sum(some) / len(some))
        begin, end = across.place(float(first)), across.place(float(first + len(some)))
        path += f" L{begin:.1f},{height:.1f} L{end:.1f},{height:.1f}"
    path += f" L{RIGHT},{BOTTOM} Z"
    level = up.place(even)
    lines = (
        Line("share of each code, most frequent first", 0, False, path, (), len(shares), shares[-1]),
        Line("all alike", 2, True, f"M{LEFT},{level:.1f} L{RIGHT},{level:.1f}", (), len(shares), even),
    )
    return Chart(title, "", lines, across.ticks(5), percentages(up))


def percentages(axis: Axis) -> tuple[Tick, ...]:
    """Ticks of shares, in percent."""
    values = rounds(axis.low * 100, axis.high * 100, 5)
    return tuple(Tick(round(axis.place(value / 100), 1), f"{value:.3g}%") for value in values)


def thin(points: Points) -> Points:
    """As many points as can be told apart: the least and greatest of each few, in their order."""
    if len(points) <= MOST_POINTS:
        return points
    width = ceil(len(points) / (MOST_POINTS / 2))
    kept: Points = []
    for first in range(0, len(points), width):
        some = points[first : first + width]
        extremes = {min(some, key=lambda point: point[1]), max(some, key=lambda point: point[1])}
        kept += sorted(extremes)
    return kept


def spread(steps: Sequence[int], count: int) -> list[int]:
    """About `count` of some steps, evenly, with the first and the last."""
    if len(steps) <= count:
        return list(steps)
    return [steps[round(number * (len(steps) - 1) / (count - 1))] for number in range(count)]


def around(low: float, high: float, share: float) -> tuple[float, float]:
    """A range with some room at both ends, and never empty."""
    if low == high:
        room = abs(low) * 0.1 or 1.0
        return low - room, high + room
    room = (high - low) * share
    return low - room, high + room


def rounds(low: float, high: float, count: int) -> list[float]:
    """About `count` multiples of 1, 2 or 5 times a power of ten in a range."""
    power = 10.0 ** floor(log10((high - low) / count))
    pitches = (factor * power for factor in (1, 2, 5, 10))
    pitch = next(pitch for pitch in pitches if floor(high / pitch) - ceil(low / pitch) <= count)
    return [round(number * pitch, 12) for number in range(ceil(low / pitch), floor(high / pitch) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten in a range, every so many that they can be read."""
    first, last = ceil(log10(low)), floor(log10(high))
    return [10.0**power for power in range(first, last + 1, max(1, ceil((last - first) / 5)))]


def labels(values: Sequence[float]) -> list[str]:
    """Short numbers for an axis, with as many digits as tell them apart."""
    named = [label(value, 3) for value in values]
    for digits in range(4, MOST_DIGITS):
        if len(set(named)) == len(set(values)):
            break
        named = [label(value, digits) for value in values]
    return named


def label(value: float, digits: int = 4) -> str:
    """A short number for an axis."""
    if abs(value) >= 10_000:
        for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return f"{value / size:.{digits}g}{letter}"
    return f"{value:.{max(4, digits)}g}".replace("e-0", "e-")
