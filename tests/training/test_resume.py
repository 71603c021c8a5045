"""A resumed run equals an uninterrupted one bit for bit."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open

from genstack.cli.main import main
from genstack.prior.random_order import RandomOrder
from genstack.training.callbacks import checkpoint
from genstack.training.prior import PriorTraining

ROOT = Path(__file__).parents[2]
TRAIN = str(ROOT / "train.py")
EVERY_STEP = ("--trainer.checkpoint_minutes", "0")

pytestmark = pytest.mark.slow


class PowerCut(BaseException):
    """Nothing catches it and nobody tidies up."""


def cut(monkeypatch, owner, name, when):
    """Let the power fail when a method is called and `when` says so."""
    method = getattr(owner, name)

    def called(*arguments, **named):
        if when(*arguments):
            raise PowerCut
        return method(*arguments, **named)

    monkeypatch.setattr(owner, name, called)


def half_written(monkeypatch, after):
    """Let the power fail in the middle of a checkpoint."""
    written, save = [], torch.save

    def called(checkpoint, file):
        written.append(file)
        if len(written) > after:
            file.write(b"half of a checkpoint")
            raise PowerCut
        save(checkpoint, file)

    monkeypatch.setattr(torch, "save", called)


MOMENTS = {
    "in a step": lambda patch, kind: cut(
        patch, kind, "training_step", lambda self, *_: self.global_step == 5
    ),
    "before the first checkpoint": lambda patch, kind: cut(
        patch, checkpoint.CheckpointCallback, "checkpoint", lambda self, trainer: trainer.global_step == 1
    ),
    "before a validation": lambda patch, kind: cut(
        patch, kind, "on_validation_epoch_start", lambda self: self.global_step == 4
    ),
    "after a validation": lambda patch, kind: cut(
        patch, checkpoint.CheckpointCallback, "checkpoint", lambda self, trainer: trainer.global_step == 4
    ),
    "in the last validation": lambda patch, kind: cut(
        patch, kind, "validation_step", lambda self, *_: self.global_step == 8
    ),
    "in the middle of a checkpoint": lambda patch, kind: half_written(patch, after=2),
}


@pytest.mark.parametrize(
    ("stage", "moment"),
    [
        *(("compressor", moment) for moment in MOMENTS if not moment.endswith(" validation")),
        *(("prior", moment) for moment in MOMENTS if moment.endswith(" validation")),
    ],
)
def test_power_loss_does_not_change_results(runs, straight, unlike, stage, kinds, moment, monkeypatch):
    whole = straight(stage)
    name = f"{moment} of {stage}"
    words = runs.words(stage, name, *EVERY_STEP)
    with monkeypatch.context() as patch:
        MOMENTS[moment](patch, kinds[stage])
        with pytest.raises(PowerCut):
            main(["train", *words])
    nothing_yet = moment == "before the first checkpoint"  # the same command begins anew, or resumes
    assert main(["train", *(words if nothing_yet else ["resume", str(runs.folder / name)])]) is None
    assert unlike(whole, runs.folder / name) == []


@pytest.mark.parametrize(
    ("number", "step"),
    [(signal.SIGINT, 5), (signal.SIGTERM, 3)],
    ids=["in training", "before a validation"],
)
def test_signals_stop_after_the_step(runs, straight, unlike, stage, kinds, number, step, monkeypatch, capsys):
    """Without a checkpoint of its own the step would be lost; all signals are heard as before afterwards."""
    whole, name = straight(stage), f"{stage} stopped by {number} in {step}"
    words, before = runs.words(stage, name), signal.getsignal(number)
    training_step = kinds[stage].training_step

    def interrupted(self, *arguments):
        if self.global_step == step:
            signal.raise_signal(number)
        return training_step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(kinds[stage], "training_step", interrupted)
        assert main(["train", *words]) == 128 + number
    assert signal.getsignal(number) is before
    folder = runs.folder / name
    assert (
        f"stopped by {number.name} after step {step + 1}; everything is saved. "
        f"Continue with:  genstack train resume {folder}\n" in capsys.readouterr().err
    )
    assert torch.load(folder / checkpoint.LAST, weights_only=True)["global_step"] == step + 1
    assert main(["train", "resume", str(folder)]) is None
    assert unlike(whole, folder) == []


def wait(script, folder, step):
    """Wait until a run has done some steps."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert script.process.exitcode is None, script.read("err")
        if (folder / "metrics.jsonl").exists() and f'"step": {step}' in (
            folder / "metrics.jsonl"
        ).read_text():
            return
        time.sleep(0.01)
    raise TimeoutError(f"{folder} has not come to step {step}")


def test_killed_run_resumes_bit_for_bit(runs, unlike, stage, start):
    length = ("--trainer.max_steps", "20", "--trainer.validate_every", "10")
    whole, folder = runs.train(stage, f"long-{stage}", *length), runs.folder / f"killed-{stage}"
    script = start(TRAIN, *runs.words(stage, folder.name, *length, *EVERY_STEP))
    wait(script, folder, 5)
    os.kill(script.pid, signal.SIGKILL)
    assert script.finish()[0] == -signal.SIGKILL
    assert 4 <= torch.load(folder / checkpoint.LAST, weights_only=True)["global_step"] < 20
    assert main(["train", "resume", str(folder)]) is None
    assert unlike(whole, folder) == []


def test_ctrl_c_with_data_workers(runs, straight, unlike, start):
    """A terminal interrupts the whole group of processes, those that read images included."""
    whole, folder = straight("compressor"), runs.folder / "readers"
    script = start(TRAIN, *runs.words("compressor", folder.name, "--data.workers", "2"))
    wait(script, folder, 2)
    os.killpg(script.pid, signal.SIGINT)
    status, _, errors = script.finish(timeout=120)
    assert status == 130, errors
    assert "Traceback" not in errors
    assert f"Continue with:  genstack train resume {folder}" in errors
    assert main(["train", "resume", str(folder)]) is None
    assert unlike(whole, folder) == [], "nor do readers change what is learned"


@pytest.mark.parametrize(
    ("stage", "flags"),
    [
        ("compressor", ("--trainer.accumulate_grad_batches", "2")),
        ("prior", ("--trainer.accumulate_grad_batches", "2", "--data.batch_size", "10")),
    ],
)
def test_accumulated_batches_resume_as_a_whole(runs, unlike, stage, flags, kinds, monkeypatch):
    """Accumulation stops between steps only, and a batch may lie across two epochs."""
    whole = runs.train(stage, f"whole {flags[0]} {stage}", *flags, "--trainer.max_steps", "5")
    name, calls = f"parts {flags[0]} {stage}", []
    words = runs.words(stage, name, *flags, *EVERY_STEP, "--trainer.max_steps", "5")
    with monkeypatch.context() as patch:
        cut(patch, kinds[stage], "training_step", lambda *_: calls.append(0) or len(calls) == 4)
        with pytest.raises(PowerCut):
            main(["train", *words])
    assert main(["train", "resume", str(runs.folder / name)]) is None
    assert unlike(whole, runs.folder / name) == []


def test_schedules_continue_after_resume(runs, unlike, monkeypatch):
    """The share of random orders falls with the steps done: each part of a step has it, and a resumed run."""
    told = []
    flags = ("--model.prior", "RandomOrder", "--trainer.accumulate_grad_batches", "2")
    before_step = RandomOrder.before_step

    def heard(self, progress):
        told.append(progress)
        before_step(self, progress)

    monkeypatch.setattr(RandomOrder, "before_step", heard)
    whole = runs.train("prior", "orders", *flags)
    assert told == [step / 8 for step in range(8) for _ in range(2)]
    told.clear()
    with monkeypatch.context() as patch:
        cut(patch, PriorTraining, "training_step", lambda self, *_: self.global_step == 6)
        with pytest.raises(PowerCut):
            main(["train", *runs.words("prior", "orders cut", *flags, *EVERY_STEP)])
    told.clear()
    assert main(["train", "resume", str(runs.folder / "orders cut")]) is None
    assert told == [6 / 8, 6 / 8, 7 / 8, 7 / 8]
    assert unlike(whole, runs.folder / "orders cut") == []


def test_moved_runs_resume(runs, straight, unlike, stage, kinds, tmp_path, monkeypatch):
    whole, name = straight(stage), f"moved-{stage}"
    with monkeypatch.context() as patch:
        cut(patch, kinds[stage], "training_step", lambda self, *_: self.global_step == 6)
        with pytest.raises(PowerCut):
            main(["train", *runs.words(stage, name, *EVERY_STEP)])
    shutil.move(runs.folder / name, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "resume", "elsewhere"]) is None
    assert unlike(whole, tmp_path / "elsewhere") == []


def test_finished_run_is_reported(runs, straight, stage, capsys):
    folder = straight(stage)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for words in (["resume", str(folder)], runs.words(stage, folder.name)):
        assert main(["train", *words]) is None
        assert f"{folder} is complete: 8 of 8 steps are done\n" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_changed_settings_are_rejected_by_name(runs, straight, stage, capsys):
    folder = straight(stage)
    words = runs.words(stage, folder.name, "--model.ema", "0.8", "--data.workers", "1")
    capsys.readouterr()
    assert main(["train", *words]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "model.ema: 0.9 -> 0.8" in message
    assert "data.workers: 0 -> 1" in message
    assert f"genstack train resume {folder}" in message


def resume_with(folder, changes):
    """Resume a finished run for one step more, with other text in its config.yaml."""
    text = (folder / "config.yaml").read_text()
    for old, new in {"max_steps: 8": "max_steps: 9", **changes}.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "config.yaml").write_text(text)
    return main(["train", "resume", str(folder)])


def test_changed_settings_of_the_optimizer_are_applied(runs, straight, stage, capsys):
    """Lightning restores the groups of the optimizer, learning rate and all."""
    folder = runs.folder / f"changed-{stage}"
    shutil.copytree(straight(stage), folder)
    changes = {"learning_rate: 0.003": "learning_rate: 0.001", "- 0.95": "- 0.99", "final: 0.1": "final: 1.0"}
    decay = {"compressor": "0.0", "prior": "0.05"}[stage]
    assert resume_with(folder, changes | {f"weight_decay: {decay}": "weight_decay: 0.3"}) is None
    told = capsys.readouterr().err
    assert "changed at step 8: " in told and "learning_rate: 0.003 -> 0.001" in told
    groups = torch.load(folder / checkpoint.LAST, weights_only=True)["optimizer_states"][0]["param_groups"]
    assert {group["lr"] for group in groups} == {group["initial_lr"] for group in groups} == {0.001}
    assert {tuple(group["betas"]) for group in groups} == {(0.9, 0.99)}
    assert {group["weight_decay"] for group in groups} == {0.0, 0.3}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "codebook_init: latents",
            "codebook_init: null",
            "quantizer.codebook_init cannot change after a run",
        ),
        (
            "muon: null",
            "muon: 0.01",
            "optimization.muon cannot change after a run has begun (None -> 0.01)",
        ),
        ("accumulate_grad_batches: 1", "accumulate_grad_batches: 2", "accumulate_grad_batches cannot change"),
        ("width: 4", "width: 8", "does not match model.compressor.network.width: 4 -> 8"),
    ],
)
def test_settings_that_cannot_change_are_rejected_by_name(runs, straight, capsys, old, new, words):
    folder = runs.folder / f"rejected {new}"
    shutil.copytree(straight("compressor"), folder)
    assert resume_with(folder, {old: new}) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert words in message and "--name" in message


def test_failed_start_frees_the_name(runs, stage, capsys):
    """A corrected setting is accepted under the same name."""
    name = f"mended-{stage}"
    words = runs.words(stage, name, "--data.batch_size", "3", "--trainer.accumulate_grad_batches", "2")
    assert main(["train", *words]) == 2
    assert "use a multiple of 2" in capsys.readouterr().err
    runs.train(stage, name, "--trainer.max_steps", "1")


def test_config_holds_all_settings(runs, straight, stage):
    """Defaults too, so that a later version with other defaults changes nothing."""
    config = yaml.safe_load((straight(stage) / "config.yaml").read_text())
    assert config["trainer"]["gradient_clip_val"] == 1.0
    assert config["model"]["optimization"]["init_args"]["final"] == 0.1
    assert not {"name", "runs"} & config.keys(), "a folder may be moved"


def test_run_files_hold_plain_values(straight, stage):
    """No file needs a pickle to be trusted, and each says how it is to be read."""
    folder = straight(stage)
    known = {
        "config.yaml": yaml.safe_load,
        "metrics.jsonl": lambda text: [json.loads(line) for line in text.splitlines()],
        ".lock": lambda text: text == "",
        "model.json": lambda text: json.loads(text)["format_version"],
    }
    for path in filter(Path.is_file, folder.rglob("*")):
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                assert json.loads(file.metadata()["genstack"])["format_version"] == 2
        elif path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
        elif path.suffix == ".ckpt":
            assert torch.load(path, weights_only=True)["format_version"] == 2
        else:
            assert known[path.name](path.read_text())


def test_checkpoint_of_another_version_is_rejected(runs, stage, capsys):
    folder = runs.train(stage, f"future-{stage}", "--trainer.max_steps", "1")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["trainer"]["max_steps"] = 2
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    saved = torch.load(folder / checkpoint.LAST, weights_only=True)
    torch.save(saved | {"format_version": 3}, folder / checkpoint.LAST)
    assert main(["train", "resume", str(folder)]) == 2
    assert "has format version 3, this genstack reads 2" in capsys.readouterr().err
