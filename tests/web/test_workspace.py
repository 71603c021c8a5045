"""Runs, uploads and requests of a page, without the page."""

import os
import sys
from pathlib import Path

import pytest

from genstack.checkpoints.model_file import load, save
from genstack.cli.main import main
from genstack.errors import UserError
from genstack.web.job import new_folder
from genstack.web.runs import OpenRun, open_runs
from genstack.web.workspace import Workspace, sentence


def test_a_model_is_loaded_again_after_training_wrote_another(saved, tmp_path):
    model = load(saved / "plain")
    save(model, tmp_path / "run")
    run = OpenRun(tmp_path / "run")
    first = run.model
    assert run.model is first
    model.save_preset("mine", model.options("fid"))
    save(model, tmp_path / "run")
    os.utime(tmp_path / "run" / "model.safetensors", ns=(1, 1))
    assert run.model is not first and "mine" in run.model.presets


def test_models_that_come_with_genstack_keep_their_name():
    from genstack import models

    run = OpenRun(models.known()["clipart"])
    assert run.name == "clipart" and not run.trained_here and run.has_model


def test_an_exported_model_has_no_training(saved):
    run = OpenRun(saved / "plain")
    assert not run.trained_here and run.has_model and run.model is run.model


def test_old_pictures_are_removed(tmp_path):
    space = Workspace(tmp_path)
    for name in ("sample-1", "sample-2"):
        (tmp_path / name).mkdir()
    (tmp_path / "sample-1.zip").touch()
    for name in ("sample-1", "sample-1.zip"):
        os.utime(tmp_path / name, (1, 1))
    new_folder(tmp_path, "decode", "x")
    with space.request("ann", print):
        assert [path.name for path in tmp_path.glob("sample*")] == ["sample-2"]


def test_a_run_before_its_first_validation_has_no_model(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 3, "train/loss": 2.5}\n')
    (run,) = open_runs([str(tmp_path)], "cpu")
    assert run.trained_here and not run.has_model
    before = run.training_stamp()
    assert run.training().history.step == 3
    (tmp_path / "metrics.jsonl").write_text('{"step": 4, "train/loss": 2.4}\n')
    os.utime(tmp_path / "metrics.jsonl", ns=(1, 1))
    assert run.training_stamp() != before


def test_an_upload_is_kept_as_the_model_sees_it(saved, tmp_path, picture):
    space, model = Workspace(tmp_path), load(saved / "plain")
    file = space.picture(model, str(picture))
    assert space.picture(model, str(picture)) == file
    from PIL import Image

    with Image.open(file) as image:
        assert image.size == (24, 16)


def test_a_wrong_upload_is_one_sentence(saved, tmp_path):
    upload = tmp_path / "secret folder" / "notes.png"
    upload.parent.mkdir()
    upload.write_text("no picture")
    with pytest.raises(UserError) as error:
        Workspace(tmp_path).picture(load(saved / "plain"), str(upload))
    assert str(error.value) == "notes.png cannot be read as a picture: cannot identify image file"


def test_errors_lose_the_name_of_the_command():
    assert sentence(UserError("genstack sample: count must be at least 1")) == "Count must be at least 1."
    assert sentence(UserError("unknown class 'x'")) == "Unknown class 'x'."


def test_a_request_ends_when_its_user_or_the_server_stops_it(tmp_path):
    space, shown = Workspace(tmp_path), []
    with space.request("ann", shown.append) as report:
        report(0.5)
        space.stop("bob")
        report(0.6)
        space.stop("ann")
        report(0.7)
        raise AssertionError("it went on")
    with space.request("ann", shown.append) as report:
        report(0.1)
        space.closing.set()
        report(0.2)
        raise AssertionError("it went on")
    assert shown == [0.5, 0.6, 0.1]


def test_gradio_is_asked_for_by_its_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["web", "clipart"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "gradio" in told and "pip install 'genstack-images[web]'" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "RUNS is missing"), (["run", "--port", "70000"], "port must be from 0 to 65535, got 70000")],
)
def test_wrong_words_are_refused(words, message, capsys):
    assert main(["web", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_run_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="runs/nothing"):
        open_runs([str(Path("runs") / "nothing")], "cpu")
