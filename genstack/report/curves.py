"""Curves of a run, and of several runs in common charts."""

from collections.abc import Iterable, Mapping, Sequence

from genstack.report.chart import Chart, Curve, chart
from genstack.report.history import History

#: Baselines by the metric whose chart shows them.
BASELINES = {"unigram": "nats", "uniform": "nats"}
SHADES = {"train": 0, "val": 1}
FIRST = ("nats", "psnr", "loss", "reconstruction", "usage", "perplexity")  # then the rest


def charts(history: History) -> tuple[list[Chart], dict[str, float]]:
    """Draw a chart per metric, training and validation together; also return constant metrics by name."""
    boxes: dict[str, list[Curve]] = {}
    constant: dict[str, float] = {}
    for name, points in history.series.items():
        stage, _, metric = name.rpartition("/")
        baseline = metric in BASELINES
        if not baseline and len(points) > 1 and len({value for _, value in points}) == 1:
            constant[name] = points[0][1]
            continue
        shade = list(BASELINES).index(metric) + 2 if baseline else SHADES.get(stage, 4)
        boxes.setdefault(BASELINES.get(metric, metric), []).append(Curve(name, points, shade, baseline))
    drawn = (chart(metric.replace("_", " "), boxes[metric]) for metric in in_order(boxes))
    return [box for box in drawn if box is not None], constant


def overlaid(histories: Mapping[int, tuple[str, History]]) -> list[Chart]:
    """Draw a chart per logged name, with a curve per run.

    Args:
        histories: name and metrics of each run, by its index.
    """
    names = dict.fromkeys(name for _, history in histories.values() for name in history.series)
    drawn = []
    for name in sorted_names(names):
        curves = [
            Curve(run, history.series[name], index, index % 2 == 1)
            for index, (run, history) in histories.items()
            if name in history.series
        ]
        if len({value for curve in curves for _, value in curve.points}) > 1:
            drawn.append(chart(name, curves))
    return [box for box in drawn if box is not None]


def in_order(metrics: Iterable[str]) -> list[str]:
    """Sort metrics by importance."""
    found = list(metrics)
    return [*(name for name in FIRST if name in found), *(name for name in found if name not in FIRST)]


def sorted_names(names: Iterable[str]) -> Sequence[str]:
    """Sort logged names, such as `val/psnr`, by the importance of their metric."""
    found = list(names)
    order = in_order(dict.fromkeys(name.rpartition("/")[2] for name in found))
    return sorted(found, key=lambda name: order.index(name.rpartition("/")[2]))
