"""Data of incomplete runs."""

from pathlib import Path

from PIL import Image

from genstack.report.history import History
from genstack.report.missing import Missing
from genstack.report.run_data import RunData
from genstack.report.summary import headline

NOTHING = Missing("it is not there")


def run_data(folder: Path, history: History | Missing = NOTHING) -> RunData:
    """A run with nothing but its history."""
    return RunData(folder, NOTHING, history, NOTHING, NOTHING, NOTHING)


def test_first_middle_and_last_sheet_are_shown(tmp_path: Path):
    (tmp_path / "images").mkdir()
    for step in (10, 20, 30, 40, 50):
        Image.new("RGB", (4, step)).save(tmp_path / "images" / f"{step:08d}.png")
    (tmp_path / "images" / "codes-00000050.png").write_bytes(b"a chart of its own")
    shown = run_data(tmp_path).sheets()
    assert [(step, picture.height) for step, picture in shown] == [("10", 10), ("30", 30), ("50", 50)]
    (tmp_path / "images" / "00000050.png").write_bytes(b"no picture")
    assert [step for step, _ in run_data(tmp_path).sheets()] == ["10", "30"]


def test_charts_are_found_by_name(tmp_path: Path):
    (tmp_path / "images").mkdir()
    for name in ("00000010", "codes-00000010", "codes-00000020", "two-words-00000005", "notes"):
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / f"{name}.png")
    run = run_data(tmp_path)
    assert run.charts == ["codes", "two-words"]
    assert [step for step, _ in run.sheets("codes")] == ["10", "20"]
    assert run.sheets("codes")[0][1].alt == "after 10 steps"


def test_run_without_a_model_has_its_logged_metrics(tmp_path: Path):
    history = History({"val/psnr": [(5, 20.0), (9, 21.5)], "train/loss": [(12, 0.5)]})
    assert run_data(tmp_path, history).validation_results == (9, {"val/psnr": 21.5})
    assert headline(run_data(tmp_path, history)) == "A compressor, 12 steps."
    assert run_data(tmp_path).validation_results == (0, {})
