"""Non-finite batches are skipped; too many stop the run."""

import json

import pytest
import torch

from genstack.checkpoints.model_file import load
from genstack.cli.main import main
from genstack.training.callbacks.checkpoint import LAST
from genstack.training.training import MAX_SKIPPED, Training

pytestmark = pytest.mark.slow


@pytest.fixture
def spoilt(runs, kinds, stage, monkeypatch):
    """Lets the loss of chosen steps be no number; returns the weights before and after every step."""

    runs.compressor()  # which is not to be spoilt

    def spoil(steps, part=0):
        kind, seen = kinds[stage], []
        training_step, optimizer_step = kind.training_step, Training.optimizer_step

        def poisoned(self, batch, batch_idx):
            if self.global_step in steps and batch_idx % self.trainer.accumulate_grad_batches == part:
                batch.images = torch.full_like(batch.images, torch.nan)
                if stage == "prior":  # codes hide what images are
                    return training_step(self, batch, batch_idx) * torch.nan
            return training_step(self, batch, batch_idx)

        def watched(self, *arguments, **named):
            def learned():
                parts = {"model": self.model, "ema": self.ema}
                if getattr(self, "adversary", None) is not None:
                    parts["adversary"] = self.adversary
                return {
                    f"{part}.{name}": value.clone()
                    for part, module in parts.items()
                    for name, value in module.state_dict().items()
                }

            before = learned()
            optimizer_step(self, *arguments, **named)
            seen.append((before, learned()))

        monkeypatch.setattr(kind, "training_step", poisoned)
        monkeypatch.setattr(Training, "optimizer_step", watched)
        return seen

    return spoil


@pytest.mark.parametrize(("stage", "parts"), [("prior", 1), ("compressor", 2)])
def test_non_finite_batch_is_skipped(runs, stage, spoilt, parts):
    """Neither weights nor averages nor codebook, bit for bit, also where only a part of the batch is bad."""
    seen = spoilt({3, 5}, part=parts - 1)
    folder = runs.train(stage, f"bad {stage} {parts}", "--trainer.accumulate_grad_batches", str(parts))
    for step, (before, after) in enumerate(seen):
        changed = [name for name in before if not torch.equal(before[name], after[name])]
        assert (changed == []) == (step in (3, 5)), (step, changed)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    skipped = [line["train/skipped"] for line in lines if "train/skipped" in line]
    assert skipped == [0, 0, 0, 1, 1, 2, 2, 2]
    state = torch.load(folder / LAST, weights_only=True)["state_dict"]
    assert int(state["skipped"]) == 2
    assert all(value.isfinite().all() for value in state.values())


def test_too_many_skipped_steps_stop_the_run(runs, stage, spoilt, capsys):
    spoilt(range(5, 100))
    name = f"lost-{stage}"
    words = runs.words(stage, name, "--trainer.max_steps", "40")
    assert main(["train", *words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"not finite for {MAX_SKIPPED} steps in a row, up to step 15;" in error
    checkpoint = torch.load(runs.folder / name / LAST, weights_only=True)
    assert checkpoint["global_step"] >= 4
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    model = load(runs.folder / name)
    assert all(value.isfinite().all() for value in model.modules().state_dict().values())
