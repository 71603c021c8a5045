"""Errors in a run: the last whole step is saved, a full disk spares what was saved before, one line tells."""

import errno
import os

import pytest
import torch

from genstack.cli.main import main
from genstack.training.callbacks.checkpoint import LAST, CheckpointCallback
from genstack.training.callbacks.metrics import Metrics
from genstack.training.training import Training

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
    ("moment", "parts", "step"),
    [("in a step", 1, 6), ("in the second part of a step", 2, 6), ("after a step", 1, 6)],
)
def test_an_error_loses_no_step(runs, straight, unlike, stage, kinds, moment, parts, step, monkeypatch):
    """Neither memory that runs out in the middle of a step, with all its sums half done, nor a full disk."""
    flags = ("--trainer.accumulate_grad_batches", str(parts))
    whole = straight(stage) if parts == 1 else runs.train(stage, f"{stage} in {parts} parts", *flags)
    name = f"{stage} failing {moment}"
    with monkeypatch.context() as patch:
        if moment == "after a step":
            full = OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")
            failing(patch, Metrics, "write", lambda self, trainer, _: trainer.global_step == step, full)
        else:
            last = lambda self, batch, number: (  # noqa: E731
                self.global_step == step and number % parts == parts - 1
            )
            failing(patch, kinds[stage], "training_step", last, MemoryError("too little memory"))
        if moment == "after a step":
            assert main(["train", *runs.words(stage, name, *flags)]) == 2
        else:
            with pytest.raises(MemoryError):
                main(["train", *runs.words(stage, name, *flags)])
    assert saved_step(runs.folder / name) == step
    assert main(["train", "resume", str(runs.folder / name)]) is None
    assert unlike(whole, runs.folder / name) == []


def test_half_changed_weights_are_not_saved(runs, straight, unlike, monkeypatch):
    """An error between the optimizer and the end of the step leaves the checkpoint before it."""
    with monkeypatch.context() as patch:
        late = lambda self, skipped: self.global_step == 6  # noqa: E731
        failing(patch, Training, "after_step", late, RuntimeError("half done"))
        with pytest.raises(RuntimeError, match="half done"):
            main(["train", *runs.words("prior", "half changed")])
    assert saved_step(runs.folder / "half changed") == 4
    assert main(["train", "resume", str(runs.folder / "half changed")]) is None
    assert unlike(straight("prior"), runs.folder / "half changed") == []


@pytest.mark.parametrize("file", ["checkpoint", "model"])
def test_a_full_disk_leaves_what_was_saved(
    runs, straight, unlike, full_disk, stage, file, monkeypatch, capsys
):
    """What no longer fits is told in a line; what was there before is whole, and the run goes on from it."""
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
        patch.setattr(CheckpointCallback, "rescue", lambda *_: None)
        words = runs.words(stage, name, "--trainer.checkpoint_minutes", "0")
        assert main(["train", *words]) == 2
    place = runs.folder / name
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("genstack train: ") and ("large" in error or "cannot be written" in error), error
    assert not list(place.rglob("*.writing"))
    assert saved_step(place) == step - 1
    assert main(["train", "resume", str(place)]) is None
    assert unlike(straight(stage), place) == []


def test_output_that_cannot_be_written_is_told_at_once(runs, capsys):
    words = runs.words("compressor", "nowhere", "--runs", "/proc/nowhere")
    assert main(["train", *words]) == 2
    message = capsys.readouterr().err
    assert "/proc/nowhere" in message and message.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_that_may_no_longer_be_written_stays_as_it_is(runs, straight, capsys):
    folder = straight("compressor")
    (folder / "checkpoints").chmod(0o555)
    try:
        assert main(["train", *runs.words("compressor", folder.name, "--trainer.max_steps", "9")]) == 2
    finally:
        (folder / "checkpoints").chmod(0o755)
    assert saved_step(folder) == 8
