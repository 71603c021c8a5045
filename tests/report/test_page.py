"""The report page: sections, escaping, and values from the files."""

import json
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from genstack.checkpoints.model_file import load
from genstack.cli.main import main
from genstack.cli.parsing import stages
from genstack.cli.verbs import report
from genstack.errors import UserError
from genstack.report.missing import Missing, attempt
from genstack.report.page import differences, percent, sentence, short, training_page
from genstack.report.summary import label
from genstack.training.run import Run
from genstack.web.runs import OpenRun

VOID = {"meta", "link", "img", "br", "hr", "input"}
DRAWN = {"path", "line"}  # closed by themselves inside svg


class Checked(HTMLParser):
    """Reject unbalanced tags, scripts, handlers and external addresses; collect the text."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.values: list[str] = []
        self.pictures = 0

    def handle_starttag(self, tag, attrs):
        assert tag != "script"
        self.pictures += tag == "img"
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert value.startswith(("data:", "#"))
        self.values += [value for name, value in attrs if tag == "data" and name == "value"]
        if tag not in VOID | DRAWN:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in DRAWN

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    @property
    def said(self) -> str:
        """All text of the page."""
        return " ".join(" ".join(self.text).split())


def checked(path: Path) -> Checked:
    """A page that has been looked through."""
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert (
        "http:" not in page
        and "https:" not in page
        and "//" not in re.sub(r"base64,[^\"]*", "", page).lower()
    )
    assert "default-src 'none'" in page
    found = Checked()
    found.feed(page)
    found.close()
    assert found.open == []
    return found


def copied(run: Path, to: Path) -> Path:
    """A run to change."""
    return Path(shutil.copytree(run, to / run.name))


@pytest.fixture(scope="session")
def page(trained) -> Checked:
    """The page of the prior."""
    assert main(["report", str(trained.prior), "--samples", "6"]) is None
    return checked(trained.prior / "report.html")


@pytest.mark.slow
def test_hostile_class_names_are_escaped(trained, page):
    for name in trained.classes:
        assert name in page.said


@pytest.mark.slow
def test_page_shows_the_logged_metrics(trained, page):
    described = json.loads((trained.prior / "model.json").read_text())
    for value in described["made"]["measured"].values():
        assert str(value) in page.values
    assert described["identity"][:16] in page.said
    for line in (trained.prior / "metrics.jsonl").read_text().splitlines():
        for name, value in json.loads(line).items():
            if name != "step":
                assert str(float(value)) in page.values, name


@pytest.mark.slow
def test_page_shows_every_section(page):
    # 4 held out: 3 pictures each, codes, 6 samples with their nearest, and 3 sheets of the training
    assert page.pictures >= 4 * 3 + 6 * 2 + 3
    for words in (
        "Images of single codes",
        "6 samples of seed 0",
        "3 of 3 steps",
        "There is no metric card",
    ):
        assert words in page.said


@pytest.mark.slow
def test_command_repeats_the_training(trained, page):
    command = next(line for line in page.text if line.startswith("genstack train prior"))
    stage = stages.STAGES["prior"]
    arguments = shlex.split(command)[3:]
    again = stage.parser.dump(stage.parse(arguments))
    settings, before = stages.read_run(Run(trained.prior))
    first = settings.parser.dump(before)
    different = [name for name, _ in differences([first, again])]
    assert different == ["name", "runs"]


@pytest.mark.slow
def test_page_shows_metric_cards(trained, tmp_path):
    run = copied(trained.compressor, tmp_path)
    number = {
        "name": "rKID-<b>",
        "value": 0.123456789,
        "meaning": "m",
        "better": "lower",
        "interval": [0.1, "inf"],
        "real": 0.01,
        "unit": "dB",
    }
    card = {
        "format_version": 1,
        "kind": "compressor",
        "numbers": [number],
        "protocol": {"kernel": "bicubic"},
        "skipped": [{"name": "rFID", "reason": "too few"}],
        "images": {},
    }
    (run / "evaluation").mkdir()
    (run / "evaluation" / "card.json").write_text(json.dumps(card))
    (run / "other.json").write_text('{"kind": 1}')
    assert main(["report", str(run)]) is None
    found = checked(run / "report.html")
    assert {"0.123456789", "0.1", "0.01"} <= set(found.values)
    for words in ("rKID-<b>", "too few", "bicubic", "lower is better"):
        assert words in found.said


@pytest.mark.slow
def test_missing_parts_have_a_reason(trained, tmp_path):
    run = copied(trained.prior, tmp_path)
    (run / "model.safetensors").unlink()
    (run / "model.json").unlink()
    shutil.rmtree(run / "images", ignore_errors=True)
    (run / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n{"step": 2, "tra')
    assert main(["report", str(run)]) is None
    said = checked(run / "report.html").said
    assert "There is no model yet" in said and "no validation metrics yet" in said
    assert "1 lines of metrics.jsonl are unreadable" in said
    (run / "metrics.jsonl").unlink()
    (run / "config.yaml").write_text("- 1")
    assert main(["report", str(run)]) is None
    assert "nothing was logged" in checked(run / "report.html").said


@pytest.mark.slow
def test_missing_images_are_omitted(trained, tmp_path):
    run = copied(trained.prior, tmp_path)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace(str(trained.pictures), str(tmp_path / "gone")))
    assert main(["report", str(run), "--samples", "3"]) is None
    found = checked(run / "report.html")
    assert "are not available" in found.said and "mean PSNR" not in found.said
    assert "3 samples of seed 0" in found.said and "not available for comparison" in found.said
    assert load(run).classes == tuple(sorted(trained.classes))


@pytest.mark.slow
def test_comparison_of_runs(trained, tmp_path):
    page = tmp_path / "both.html"
    command = ["report", str(trained.compressor), str(trained.prior), "--out", str(page), "--samples", "2"]
    assert main(command) is None
    found = checked(page)
    for run in (trained.compressor, trained.prior):
        described = json.loads((run / "model.json").read_text())
        assert {str(value) for value in described["made"]["measured"].values()} <= set(found.values)
    assert "model.prior \u2013 Autoregressive" in found.said
    assert "No metric card: compressor, prior" in found.said
    assert "Autoregressive" in found.said and "data.source" not in found.said  # the same in both


@pytest.mark.slow
def test_failure_keeps_the_old_page(trained, tmp_path, monkeypatch):
    run = copied(trained.compressor, tmp_path)
    (run / "report.html").write_text("<!doctype html>old")

    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr(report, "run_page", fail)
    with pytest.raises(RuntimeError):
        main(["report", str(run)])
    assert (run / "report.html").read_text() == "<!doctype html>old"


def test_invalid_arguments_are_one_line(tmp_path, capsys):
    for arguments, words in (
        ([str(tmp_path / "nowhere")], "not found"),
        ([str(tmp_path)], "is not a run"),
        ([], "run"),
        ([str(tmp_path), "--samples", "-1"], "samples must be at least 0, got -1"),
    ):
        assert main(["report", *arguments]) == 2
        message = capsys.readouterr().err
        assert words in message and message.count("\n") == 1


def test_formatting_of_numbers_and_reasons():
    assert [short(number) for number in (20.21418, 1.0, 12345.0, float("inf"), "n/a", 1e-7)] == [
        *("20.21", "1", "12,345", "∞", "n/a", "1e-07")
    ]
    assert [percent(share) for share in (1.0, 0.123, 0.0123)] == ["100", "12", "1.2"]
    assert sentence("there is none") == "There is none." and sentence("runs/a is gone") == "runs/a is gone."


def test_labels_of_grid_metrics():
    whole, grid, strange = (label(f"val/{name}") for name in ("usage", "usage_grid2", "usages_grid2"))
    assert grid.title == f"{whole.title}, grid 2" and grid.words == whole.words
    assert strange.title == "val/usages_grid2"


def test_attempt_returns_the_first_missing_part():
    def share(one: int, other: int) -> float:
        if other == 0:
            raise UserError("nothing to\nshare")
        return one / other

    gone, later = Missing("it is gone"), Missing("it comes later")
    assert attempt(share, 3, 4) == 0.75
    assert attempt(share, 3, 0) == Missing("nothing to share")
    assert attempt(share, gone, later) is gone and attempt(share, 3, later) is later
    assert not attempt(share, 3, 0)


def test_differing_settings():
    assert differences([{"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": None}, "d": []}]) == [
        ("a.c", ["2", "none"]),
        ("d", [None, "[]"]),
    ]
    parts = [
        {"network": {"class_path": f"genstack.compressor.{name}", "init_args": {"dim": 8}}}
        for name in ("vit.ViT", "dvae.DVAE")
    ]
    assert differences([*parts, {}]) == [
        ("network", ["ViT", "DVAE", None]),
        ("network.dim", ["8", "8", None]),
    ]


def test_a_training_is_shown_without_its_model(trained):
    run = OpenRun(trained.compressor)
    page = Checked()
    page.feed(training_page(run.training()))
    text = " ".join(page.text)
    assert not page.open and "3 of 3 steps" in text and "Validation metrics at step 3." in text
    assert page.pictures == 0 and run.training_stamp()


def test_a_training_that_has_just_begun_says_so(tmp_path):
    page = Checked()
    page.feed(training_page(OpenRun(tmp_path).training()))
    assert "There are no validation metrics yet." in " ".join(page.text)
