"""Codes of a picture: places, choices, and words of changes."""

import numpy as np
import pytest
import torch
from PIL import Image

from genstack.layout import CodeLayout
from genstack.web.decoding import Decoding, cell_at, change_at, draw_grid, enlarged_size
from genstack.web.runs import OpenRun
from genstack.web.samples import prepare


@pytest.fixture
def job(saved, tmp_path, picture) -> Decoding:
    run = OpenRun(saved / "compressor")
    prepare(run.model, picture, tmp_path / "job" / "picture.png")
    return Decoding(run, tmp_path / "job", {"change": ("9=8",)}, (tmp_path / "job" / "picture.png",))


def test_positions_count_row_by_row(job):
    rows, columns = job.layout.grids[0]
    found = [job.position(0, row, column) for row in range(rows) for column in range(columns)]
    assert found == list(range(24))
    assert job.code(9) == [8] and job.original[0, 8] == job.codes[0, 8]


def test_choices_are_the_codes_of_the_picture_each_at_the_place(job):
    symbols, images = job.choices(0, 1, 3)
    own = {*job.original[0].tolist()}
    assert {symbol for (symbol,) in symbols[: len(own)]} == own and len(symbols) == 9, (
        "all codes, its own first"
    )
    assert images.shape == (len(symbols), 3, 12, 12)
    (whole,) = job.make(lambda progress: None)
    with Image.open(whole[0]) as image:
        part = np.asarray(image)[0:12, 8:20]
    index = symbols.index(job.code(9))
    shown = ((images[index] + 1) * 127.5 + 0.5).floor().to(torch.uint8)
    assert np.array_equal(shown.permute(1, 2, 0).numpy(), part)


def test_the_table_has_every_code(job):
    lines = job.text().splitlines()
    assert [len(line.split()) for line in lines] == [6] * 4
    assert [int(code) for line in lines for code in line.split()] == job.codes[0].tolist()


def test_a_change_replaces_the_one_before():
    assert change_at(["3=1", "7=2"], 3, [5]) == ["7=2", "3=5"]
    assert change_at([], 4, [1, 2]) == ["4=1", "5=2"]


def test_every_pixel_lies_in_a_cell():
    grid, size = (3, 5), (32, 17)
    found = {cell_at(grid, size, (x, y)) for x in range(32) for y in range(17)}
    assert found == {(row, column) for row in range(3) for column in range(5)}
    assert cell_at(grid, size, (0, 16)) == (2, 0) and cell_at(grid, size, (31, 0)) == (0, 4)


def test_the_grid_frames_the_chosen_cell():
    picture = Image.new("RGB", (10, 6), "white")
    assert enlarged_size(picture, 64) == (60, 36)
    drawn = np.asarray(draw_grid(picture, (3, 5), (1, 2), 64)).astype(int)
    assert drawn.shape == (36, 60, 3)
    orange = (drawn[..., 0] - drawn[..., 2]) > 100
    rows, columns = np.nonzero(orange)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 24, 24, 36)


def test_positions_of_a_second_grid_follow_the_first(job, monkeypatch):
    layout = CodeLayout((24, 32), 11, ((1, 2), (3, 4)), depth=2)
    monkeypatch.setattr(Decoding, "layout", layout)
    assert job.position(0, 0, 1) == 2
    assert job.position(1, 2, 3) == 2 * (2 + 11)
