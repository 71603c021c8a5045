"""Callbacks of Lightning and of plugins: named by settings, and as if a run had never been interrupted."""

import re
from pathlib import Path

import pytest
import torch
import yaml

import genstack
from genstack import plugins
from genstack.cli.main import main

INTERRUPT = '''
import os, signal
from pytorch_lightning.callbacks import EarlyStopping


class StopSlowly(EarlyStopping):
    """Stop after some validations without a better metric, and press Ctrl-C once.

    Args:
        monitor: metric of validation.
        patience: number of validations.
        interrupt: step of Ctrl-C; 0 for none.
    """

    def __init__(self, monitor: str, patience: int = 3, interrupt: int = 0):
        super().__init__(monitor, patience=patience)
        self.interrupt = interrupt

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.interrupt:
            os.kill(os.getpid(), signal.SIGINT)
'''
TINY = [
    *("train", "compressor", "--config", "configs/demo/digits_compressor.yaml", "--data.batch_size", "4"),
    *("--data.limit", "60", "--log.images", "0"),
    *("--trainer.max_steps", "20", "--trainer.validate_every", "2"),
    *("--model.compressor.network.width", "8", "--model.compressor.network.dim", "8"),
]


def callbacks(name, **settings):
    words = ["--trainer.callbacks", name]
    for key, value in settings.items():
        words += [f"--trainer.callbacks.{key}", str(value)]
    return words


@pytest.fixture(autouse=True)
def only_this_plugin(monkeypatch):
    monkeypatch.setenv(plugins.FOLDERS, "")
    monkeypatch.setattr(plugins, "__path__", [])


@pytest.mark.parametrize("name", ["EarlyStopping", "lightning.pytorch.callbacks.EarlyStopping"])
def test_a_run_stops_early_and_is_complete(name, tmp_path, capsys):
    """PSNR rises from validation to validation, so that a lower one never comes."""
    words = [*TINY, "--runs", str(tmp_path), "--name", "a"]
    assert main([*words, *callbacks(name, monitor="val/psnr", patience=2)]) is None
    assert "6 of 20 steps are done, where a callback stopped it. Look at" in capsys.readouterr().out
    config = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    (kept,) = config["trainer"]["callbacks"]
    assert kept["class_path"].endswith("EarlyStopping") and kept["init_args"]["patience"] == 2
    assert main(["train", "resume", str(tmp_path / "a")]) is None
    assert "6 of 20 steps are done, where a callback stopped it\n" in capsys.readouterr().out
    config["trainer"]["callbacks"] = []
    config["trainer"]["max_steps"] = 8
    (tmp_path / "a" / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", "resume", str(tmp_path / "a")]) is None
    assert "a is complete. Look at" in capsys.readouterr().out


def test_callbacks_of_a_call_are_a_class_and_its_arguments(tmp_path):
    stop = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/psnr", "patience": 2}}
    genstack.train_compressor(
        config="configs/demo/digits_compressor.yaml",
        runs=tmp_path,
        data={"batch_size": 4, "limit": 60},
        log={"images": 0},
        model={"compressor": {"network": {"width": 8, "dim": 8}}},
        trainer={"max_steps": 20, "validate_every": 2, "callbacks": [stop]},
    )
    config = yaml.safe_load((tmp_path / "compressor" / "config.yaml").read_text())
    assert config["trainer"]["callbacks"][0]["init_args"]["patience"] == 2


@pytest.mark.slow
def test_states_of_callbacks_survive_an_interruption(tmp_path):
    (tmp_path / "slowly.py").write_text(INTERRUPT)
    plugin = ["--plugin", str(tmp_path / "slowly.py")]
    words = [*TINY, *plugin, "--runs", str(tmp_path), *callbacks("StopSlowly", monitor="val/psnr")]
    assert main([*words, "--name", "whole"]) is None
    assert main([*words, "--trainer.callbacks.interrupt", "5", "--name", "parts"]) == 130
    assert main(["train", "resume", str(tmp_path / "parts"), *plugin]) is None
    states = []
    for name in ("whole", "parts"):
        checkpoint = torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        states.append({key: str(state) for key, state in checkpoint["callbacks"].items()})
        assert checkpoint["global_step"] == 8 and checkpoint["stopped"]
    assert states[0] == states[1] and any("wait_count': 3" in state for state in states[0].values())
    whole, parts = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "parts"))
    assert whole == parts
    with plugins.use_temporarily([tmp_path / "slowly.py"]):
        models = [genstack.load(tmp_path / name).fingerprint for name in ("whole", "parts")]
    assert models[0] == models[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (callbacks("EarlyStoping"), r"unknown callbacks 'EarlyStoping'; did you mean 'EarlyStopping'\?"),
        (callbacks("ModelPruning"), r"expected DeviceStatsMonitor or .*, got 'ModelPruning'"),
        (callbacks("EarlyStopping"), r"--trainer\.callbacks\.monitor is missing"),
        (
            callbacks("EarlyStopping", monitor="val/pnsr"),
            r"metric 'val/pnsr' of Ea.*; choose from val/",
        ),
        (callbacks("EarlyStopping", monitor="val/psnr", mode="up"), r"trainer\.callbacks.*`mode` can be"),
        (
            callbacks("EarlyStopping", monitor="val/psnr", pat=3),
            r"option '--trainer\.callbacks\.pat'",
        ),
        (
            callbacks("LearningRateMonitor"),
            r"`LearningRateMonitor` .* has no logger.*; add --log.tensorboard true, or --log.wandb offline$",
        ),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, capsys):
    assert main([*TINY, *words, "--runs", str(tmp_path)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if line.startswith("genstack train")]) == 1
    assert re.search(message, said[-1]), said[-1]
    assert not (tmp_path / "compressor").exists()


def test_several_callbacks_and_their_help(tmp_path, capsys):
    words = [*TINY, "--trainer.max_steps=2", "--log.tensorboard", "--runs", str(tmp_path), "--name", "a"]
    words.remove("--trainer.max_steps"), words.remove("20")
    assert main([*words, "--trainer.callbacks", "LearningRateMonitor,Timer"]) is None
    config = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    assert [one["class_path"].rpartition(".")[2] for one in config["trainer"]["callbacks"]] == [
        "LearningRateMonitor",
        "Timer",
    ]
    assert any(Path(tmp_path / "a" / "tensorboard").iterdir())
    capsys.readouterr()
    assert main(["train", "compressor", "--trainer.callbacks.help=EarlyStopping"]) is None
    assert "--trainer.callbacks.patience <int>" in capsys.readouterr().out
