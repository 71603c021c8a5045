"""The curves of a run, and of several runs in the same boxes."""

from collections.abc import Mapping, Sequence

from genstack.report.chart import Chart, Curve, chart
from genstack.report.history import History

#: Numbers that are drawn beside another one, for it to be held against.
BESIDE = {"unigram": "nats", "uniform": "nats"}
SHADES = {"train": 0, "val": 1}
FIRST = ("nats", "psnr", "loss", "reconstruction", "usage", "perplexity")  # in this order; then the rest


def charts(history: History) -> tuple[list[Chart], dict[str, float]]:
    """A box for each number, in training and validation together; and those that never changed, by name."""
    boxes: dict[str, list[Curve]] = {}
    constant: dict[str, float] = {}
    for name, points in history.series.items():
        stage, _, number = name.rpartition("/")
        values = {value for _, value in points}
        if number not in BESIDE and len(values) == 1 and len(points) > 1:
            constant[name] = points[0][1]
            continue
        shade = list(BESIDE).index(number) + 2 if number in BESIDE else SHADES.get(stage, 4)
        boxes.setdefault(BESIDE.get(number, number), []).append(Curve(name, points, shade, number in BESIDE))
    drawn = [chart(words(number), boxes[number]) for number in ordered(boxes)]
    return [box for box in drawn if box is not None], constant


def overlaid(histories: Mapping[int, tuple[str, History]]) -> list[Chart]:
    """A box for each number of training or validation, with a curve for each run.

    Args:
        histories: the name and the numbers of each run, by its place among the runs.
    """
    names = list(dict.fromkeys(name for _, history in histories.values() for name in history.series))
    names = [
        number
        for last in ordered({name.rpartition("/")[2]: None for name in names})
        for number in names
        if number.rpartition("/")[2] == last
    ]
    boxes = [
        (
            name,
            [
                Curve(run, history.series[name], place, place % 2 == 1)
                for place, (run, history) in histories.items()
                if name in history.series
            ],
        )
        for name in names
    ]
    changing = [
        (name, curves)
        for name, curves in boxes
        if len({value for curve in curves for _, value in curve.points}) > 1
    ]
    drawn = [chart(name, curves) for name, curves in changing]
    return [box for box in drawn if box is not None]


def ordered(numbers: Mapping[str, object]) -> Sequence[str]:
    """What to read first, first."""
    return [*(name for name in FIRST if name in numbers), *(name for name in numbers if name not in FIRST)]


def sorted_numbers(numbers: Mapping[str, float]) -> list[tuple[str, float]]:
    """Numbers by their logged names, what to read first, first."""
    order = list(ordered({name.rpartition("/")[2]: None for name in numbers}))
    return sorted(numbers.items(), key=lambda pair: order.index(pair[0].rpartition("/")[2]))


def words(number: str) -> str:
    """A logged name to read."""
    return number.replace("_", " ")
