"""Loggers: metrics.jsonl, TensorBoard and wandb, without a network."""

import json
import signal
import time

import pytest
import torch

from genstack.cli.main import main
from genstack.training.callbacks.metrics import MetricsLogger
from genstack.training.files import METRICS
from genstack.training.loggers import WANDB_ID, Logging, wandb_identifier


def lines(folder):
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


@pytest.mark.slow
def test_logged_steps_increase(runs, straight, stage):
    steps = {
        kind: [line["step"] for line in lines(straight(stage)) if any(name[:4] == kind for name in line)]
        for kind in ("trai", "val/")
    }
    assert steps == {"trai": [1, 2, 3, 4, 5, 6, 7, 8], "val/": [4, 8]}
    order = [line["step"] for line in lines(straight(stage))]
    assert order == sorted(order)


@pytest.mark.slow
def test_metrics_follow_the_log_interval(runs):
    flags = ("--trainer.log_every_n_steps", "3", "--trainer.accumulate_grad_batches", "2")
    folder = runs.train("compressor", "seldom", *flags)
    assert [line["step"] for line in lines(folder)] == [3, 4, 6, 8]


@pytest.mark.slow
def test_expected_metrics_are_logged(straight):
    compressor, prior = (lines(straight(stage)) for stage in ("compressor", "prior"))
    for name in ("loss", "reconstruction", "codebook", "usage", "perplexity", "discriminator", "skipped"):
        assert f"train/{name}" in compressor[-2]
    assert {"val/psnr", "val/usage", "val/reconstruction"} <= set(compressor[-1])
    assert {"val/nats", "val/uniform", "val/unigram", "val/bits_per_pixel"} <= set(prior[-1])
    assert prior[-1]["val/uniform"] == pytest.approx(torch.log(torch.tensor(24.0)).item(), rel=1e-5)


def test_resuming_drops_later_lines(tmp_path):
    (tmp_path / METRICS).write_text('{"step": 1}\n{"step": 2}\n{"step": 2, "a": 3}\n{"step": 3}\n{"st')
    MetricsLogger(tmp_path).drop_after(2)
    assert lines(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 2, "a": 3}]
    MetricsLogger(tmp_path).drop_after(0)
    assert lines(tmp_path) == []


def test_wandb_identifier_is_kept(tmp_path):
    (tmp_path / "config.yaml").write_text("data: {source: digits}\n")
    first = wandb_identifier(tmp_path)
    assert first == wandb_identifier(tmp_path) == (tmp_path / WANDB_ID).read_text().strip()
    assert len(first) == 8
    logging = Logging(wandb="offline", wandb_project="pets")
    ids = {logger._wandb_init["id"] for logger in (*logging.loggers(tmp_path), *logging.loggers(tmp_path))}
    assert ids == {first}
    assert logging.loggers(tmp_path)[0]._offline


def test_no_logger_by_default(tmp_path):
    assert Logging().loggers(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_tensorboard_gets_metrics_and_images(runs):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = runs.train("compressor", "board", "--log.tensorboard", "true", "--trainer.max_steps", "4")
    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert {"train/loss", "val/psnr"} <= set(board.Tags()["scalars"])
    assert set(board.Tags()["images"]) == {"images", "codes"}
    assert [event.value for event in board.Scalars("train/loss")] == pytest.approx(
        [line["train/loss"] for line in lines(folder) if "train/loss" in line]
    )


@pytest.mark.slow
def test_wandb_offline_uses_no_network(runs, kinds, monkeypatch):
    """Its service talks to this process alone; a resumed run continues under the same identifier."""
    import wandb

    training_step = kinds["compressor"].training_step

    def interrupted(self, *arguments):
        if self.global_step == 1:
            signal.raise_signal(signal.SIGTERM)
        return training_step(self, *arguments)

    words = runs.words("compressor", "offline", "--log.wandb", "offline", "--trainer.max_steps", "4")
    folder = runs.folder / "offline"
    with monkeypatch.context() as patch:
        patch.setattr(kinds["compressor"], "training_step", interrupted)
        assert main(["train", *words]) == 128 + signal.SIGTERM
    identifier = (folder / WANDB_ID).read_text().strip()
    wandb.finish()  # as the end of the process does
    time.sleep(1)  # wandb names its folders by the second
    assert main(["train", "resume", str(folder)]) is None
    wandb.finish()
    found = list(folder.glob("wandb/offline-run-*"))
    assert len(found) == 2
    assert all(path.name.endswith(identifier) for path in found)
