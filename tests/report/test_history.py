"""Metrics from damaged files."""

from math import isinf, isnan
from pathlib import Path

from genstack.report.history import History, read
from genstack.report.missing import Missing


def test_metrics_by_name_and_damaged_lines(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "train/loss": 2.5}\n{"step": 2, "train/loss": "nan", "val/psnr": "inf"}\n'
        '[1]\n{"train/loss": 1}\n{"step": 3, "train/lo'
    )
    history = read(path)
    assert isinstance(history, History) and history.damaged == 3 and history.step == 2
    (first, second), (psnr,) = history.series["train/loss"], history.series["val/psnr"]
    assert first == (1, 2.5) and second[0] == 2 and isnan(second[1]) and isinf(psnr[1])


def test_measured_is_the_last_validation(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "val/nats": 3, "val/old": 1}\n{"step": 5, "val/nats": 2}\n{"step": 9, "train/loss": 0}\n'
    )
    history = read(path)
    assert isinstance(history, History) and history.validation_metrics == {"val/nats": 2.0}


def test_missing_or_empty_file_is_missing(tmp_path: Path):
    assert isinstance(read(tmp_path / "metrics.jsonl"), Missing)
    (tmp_path / "metrics.jsonl").write_text("")
    assert isinstance(read(tmp_path / "metrics.jsonl"), Missing)
