"""Positions of curves, ticks and labels."""

from math import inf, nan

import pytest

from genstack.report.chart import (
    BOTTOM,
    LEFT,
    MAX_POINTS,
    RIGHT,
    TOP,
    Axis,
    Curve,
    chart,
    evenly_spaced,
    histogram,
    round_values,
    thin,
)


def places(path: str) -> list[tuple[float, float]]:
    """The points of a path."""
    pairs = [point.strip(" MLZ").split(",") for point in path.split("L")]
    return [(float(x), float(y)) for x, y in pairs]


def test_curve_spans_the_box_and_higher_is_up():
    drawn = chart("nats", [Curve("train", [(0, 1.0), (50, 3.0), (100, 2.0)])])
    assert drawn is not None
    (left, low), (middle, high), (right, between) = places(drawn.lines[0].path)
    assert (left, right) == (LEFT, RIGHT) and middle == (LEFT + RIGHT) / 2
    assert TOP < high < between < low < BOTTOM
    assert between == pytest.approx((high + low) / 2, abs=0.1)  # 2 is halfway from 1 to 3


def test_wide_ranges_are_logarithmic():
    drawn = chart("loss", [Curve("train", [(1, 100.0), (2, 1.0), (3, 0.01)])])
    assert drawn is not None and drawn.note == "logarithmic scale"
    heights = [height for _, height in places(drawn.lines[0].path)]
    assert heights == pytest.approx([TOP, (TOP + BOTTOM) / 2, BOTTOM], abs=0.1)


def test_values_that_are_not_finite_are_omitted_and_counted():
    drawn = chart("loss", [Curve("train", [(1, 1.0), (2, nan), (3, inf), (4, 2.0)])])
    assert drawn is not None
    assert len(places(drawn.lines[0].path)) == 2 and "2 values" in drawn.note
    assert chart("loss", [Curve("train", [(1, nan)])]) is None


def test_single_points_and_constants_lie_in_the_box():
    for points in ([(7, 0.0)], [(1, 5.0), (2, 5.0)]):
        drawn = chart("loss", [Curve("val", points)])
        assert drawn is not None
        assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in places(drawn.lines[0].path))


def test_table_has_exact_values():
    points = [(step, step / 7) for step in range(1, 101)]
    drawn = chart("loss", [Curve("train", points), Curve("val", [(100, 5.0)])])
    assert drawn is not None
    assert drawn.steps[0] == 1 and drawn.steps[-1] == 100
    assert all(row[0] == step / 7 for step, row in zip(drawn.steps, drawn.rows, strict=True))
    assert [row[1] for row in drawn.rows] == [None] * (len(drawn.rows) - 1) + [5.0]


def test_thinning_keeps_every_peak():
    points = [(step, 0.0) for step in range(100_000)]
    points[31_415] = (31_415, 9.0)
    assert len(thin(points)) <= MAX_POINTS + 2
    assert (31_415, 9.0) in thin(points)
    assert thin(points) == sorted(thin(points))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.2, 8.1), (0.00012, 0.00013), (0.0, 16384.0)])
def test_ticks_are_round_and_inside(low: float, high: float):
    values = round_values(low, high, 5)
    assert 3 <= len(values) <= 6 and low <= values[0] and values[-1] <= high * (1 + 1e-9)
    axis = Axis(low, high, LEFT, RIGHT)
    assert [tick.place for tick in axis.ticks(5)] == pytest.approx(list(map(axis.place, values)), abs=0.1)


def test_uniform_histogram_reaches_its_line():
    drawn = histogram("codes", [0.25] * 4, 0.25)
    assert places(drawn.lines[0].path)[1][1] == places(drawn.lines[1].path)[0][1]


def test_evenly_spaced_steps_keep_both_ends():
    assert evenly_spaced(range(100), 5) == [0, 25, 50, 74, 99]
    assert evenly_spaced([3, 4], 5) == [3, 4]


@pytest.mark.parametrize(
    ("low", "high"), [(6.9289, 6.9325), (0.15620, 0.15633), (123_400.0, 123_460.0), (0.0, 5.0)]
)
def test_ticks_of_a_narrow_range_have_distinct_labels(low: float, high: float):
    labels = [tick.label for tick in Axis(low, high, BOTTOM, TOP).ticks(5)]
    assert len(set(labels)) == len(labels) and max(map(len, labels)) <= 9
    read = [float(label.replace("k", "e3")) for label in labels]
    assert read == pytest.approx(round_values(low, high, 5), rel=1e-9)
