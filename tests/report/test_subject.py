"""A run is described as far as it is there."""

from pathlib import Path

from PIL import Image

from genstack.report.absent import Absent
from genstack.report.history import History
from genstack.report.story import headline
from genstack.report.subject import Subject

NOTHING = Absent("it is not there")


def subject(folder: Path, history: History | Absent = NOTHING) -> Subject:
    """A run of which nothing else is known."""
    return Subject(folder, NOTHING, history, NOTHING, NOTHING, NOTHING)


def test_the_first_a_middle_and_the_last_sheet_are_shown(tmp_path: Path):
    (tmp_path / "images").mkdir()
    for step in (10, 20, 30, 40, 50):
        Image.new("RGB", (4, step)).save(tmp_path / "images" / f"{step:08d}.png")
    (tmp_path / "images" / "codes-00000050.png").write_bytes(b"a chart of its own")
    shown = subject(tmp_path).sheets()
    assert [(step, picture.height) for step, picture in shown] == [("10", 10), ("30", 30), ("50", 50)]
    (tmp_path / "images" / "00000050.png").write_bytes(b"no picture")
    assert [step for step, _ in subject(tmp_path).sheets()] == ["10", "30"]


def test_a_run_without_a_model_has_what_was_logged_last(tmp_path: Path):
    history = History({"val/psnr": [(5, 20.0), (9, 21.5)], "train/loss": [(12, 0.5)]})
    assert subject(tmp_path, history).measured == (9, {"val/psnr": 21.5})
    assert headline(subject(tmp_path, history)) == "A compressor, 12 steps."
    assert subject(tmp_path).measured == (0, {})
