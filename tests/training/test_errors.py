"""Errors keep the latest checkpoint, also on a full disk, and are one line."""

import errno
import os

import pytest
import torch

from genstack.cli.main import main
from genstack.training.callbacks.checkpoint import LAST, CheckpointCallback
from genstack.training.callbacks.metrics import MetricsLogger

pytestmark = pytest.mark.slow


def failing(monkeypatch, owner, name, when, error):
    """Let a method fail, after it has done its work, when `when` says so."""
    method = getattr(owner, name)

    def called(*arguments, **named):
        result = method(*arguments, **named)
        if when(*arguments):
            raise error
        return result

    monkeypatch.setattr(owner, name, called)


def saved_step(folder):
    return torch.load(folder / LAST, weights_only=True)["global_step"]


@pytest.mark.parametrize(
    ("stage", "moment", "parts"),
    [("prior", "in a step", 1), ("compressor", "in a step", 2), ("compressor", "after a step", 1)],
)
def test_run_resumes_after_an_error(runs, straight, unlike, stage, kinds, moment, parts, monkeypatch):
    """Neither running out of memory in the middle of a step nor a full disk leaves a trace."""
    flags = ("--trainer.accumulate_grad_batches", str(parts))
    whole = straight(stage) if parts == 1 else runs.train(stage, f"{stage} in {parts} parts", *flags)
    name = f"{stage} failing {moment}, {parts}"
    with monkeypatch.context() as patch:
        if moment == "after a step":
            full = OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")
            failing(patch, MetricsLogger, "write", lambda self, trainer, _: trainer.global_step == 6, full)
            assert main(["train", *runs.words(stage, name, *flags)]) == 2
        else:
            last = lambda self, batch, number: number == 7 * parts - 1  # noqa: E731
            failing(patch, kinds[stage], "training_step", last, MemoryError("too little memory"))
            with pytest.raises(MemoryError):
                main(["train", *runs.words(stage, name, *flags)])
    assert saved_step(runs.folder / name) == 4
    assert main(["train", "resume", str(runs.folder / name)]) is None
    assert unlike(whole, runs.folder / name) == []


@pytest.mark.parametrize(("stage", "file"), [("compressor", "checkpoint"), ("prior", "model")])
def test_full_disk_keeps_the_last_checkpoint(
    runs, straight, unlike, full_disk, stage, file, monkeypatch, capsys
):
    """A full disk ends in one line; earlier files stay whole, and the run resumes from them."""
    runs.compressor()
    name, step, place = f"{stage} full {file}", 6 if file == "checkpoint" else 8, None
    method = "checkpoint" if file == "checkpoint" else "on_validation_end"
    original = getattr(CheckpointCallback, method)

    def limited(self, trainer, *arguments):
        if trainer.global_step < step:
            return original(self, trainer, *arguments)
        with full_disk(3000):
            return original(self, trainer, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointCallback, method, limited)
        words = runs.words(stage, name, "--trainer.checkpoint_minutes", "0")
        assert main(["train", *words]) == 2
    place = runs.folder / name
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"genstack train {stage}: "), error
    assert "large" in error or "cannot be written" in error, error
    assert not list(place.rglob("*.writing"))
    assert saved_step(place) == step - 1
    assert main(["train", "resume", str(place)]) is None
    assert unlike(straight(stage), place) == []


def test_unwritable_folder_is_reported_at_start(runs, capsys):
    words = runs.words("compressor", "nowhere", "--runs", "/proc/nowhere")
    assert main(["train", *words]) == 2
    message = capsys.readouterr().err
    assert "/proc/nowhere" in message and message.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_run_is_not_changed(runs, straight, capsys):
    folder = straight("compressor")
    (folder / "checkpoints").chmod(0o555)
    try:
        assert main(["train", *runs.words("compressor", folder.name, "--trainer.max_steps", "9")]) == 2
    finally:
        (folder / "checkpoints").chmod(0o755)
    assert saved_step(folder) == 8
