"""Run folders that are in use, damaged or incomplete."""

import shutil
from pathlib import Path

import pytest
import torch

from genstack.cli.main import main
from genstack.cli.parsing.stages import STAGES, build_training
from genstack.training.run import Run

TINY = [
    *("--config", "configs/demo/digits_compressor.yaml", "--data.limit", "24", "--data.batch_size", "4"),
    *("--trainer.max_steps", "2", "--log.images", "0"),
    *("--model.compressor.network.width", "8", "--model.compressor.network.dim", "8"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    root = tmp_path_factory.mktemp("runs")
    assert main(["train", "compressor", *TINY, "--name", "tiny", "--runs", str(root)]) is None
    return root / "tiny"


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return shutil.copytree(trained, tmp_path / "tiny")


def again(folder: Path, *flags: str) -> int | None:
    """The same command once more."""
    return main(["train", "compressor", *TINY, "--name", folder.name, "--runs", str(folder.parent), *flags])


def test_seed_determines_initial_weights(tmp_path: Path) -> None:
    def codebook(seed: int) -> torch.Tensor:
        flags = ["--model.compressor.quantizer.codebook_init", "null", "--model.seed", str(seed)]
        stage = STAGES["compressor"]
        settings = stage.parse([*TINY, *flags])
        torch.manual_seed(7)  # whatever ran before
        return build_training(stage, settings, Run(tmp_path))[1].model.quantizer.codebook.weight.detach()

    assert torch.equal(codebook(0), codebook(0))
    assert not torch.equal(codebook(0), codebook(1))


def test_second_training_of_a_run_is_rejected(folder: Path, capsys) -> None:
    fcntl = pytest.importorskip("fcntl")
    (folder / "checkpoints" / "last.ckpt").unlink()
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert again(folder) == 2
    assert "is being trained by another process" in capsys.readouterr().err
    assert Run(folder).config()["trainer"]["max_steps"] == 2  # the other process's folder stays


@pytest.mark.parametrize("text", ["a: [", "", "- 1", "data: {source: digits}"])
def test_damaged_config_is_one_line(folder: Path, capsys, text: str) -> None:
    (folder / "config.yaml").write_text(text)
    assert main(["train", "resume", str(folder)]) == 2
    message = capsys.readouterr().err
    assert "config.yaml" in message and message.count("\n") == 1


def test_a_setting_given_twice_in_a_config_is_refused(folder: Path, capsys) -> None:
    config = folder / "config.yaml"
    text = config.read_text().replace("trainer:\n", "trainer:\n  max_steps: 4\n")
    config.write_text(text)
    assert main(["train", "resume", str(folder)]) == 2
    assert "max_steps is given twice; keep one" in capsys.readouterr().err
    assert config.read_text() == text


@pytest.mark.parametrize("content", [b"", b"junk" * 100])
def test_damaged_checkpoint_is_one_line(folder: Path, capsys, content: bytes) -> None:
    (folder / "checkpoints" / "last.ckpt").write_bytes(content)
    assert main(["train", "resume", str(folder)]) == 2
    message = capsys.readouterr().err
    assert "last.ckpt is not a valid checkpoint" in message and message.count("\n") == 1


def test_failed_start_frees_the_run_name(tmp_path: Path, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "train", broken)
    assert main(["train", "compressor", *TINY, "--name", "tiny", "--runs", str(tmp_path)]) == 130
    assert not (tmp_path / "tiny").exists()


def test_prior_rejects_unseen_image_size(folder: Path, capsys) -> None:
    flags = [
        "--config",
        "configs/demo/digits_prior.yaml",
        "--compressor",
        str(folder),
        "--runs",
        str(folder.parent),
    ]
    assert main(["train", "prior", *flags, "--data.window", "0,128"]) == 2
    assert "the data's window is" in capsys.readouterr().err
    assert main(["train", "prior", *flags, "--data.channels", "3"]) == 2
    assert "the data's channels is 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flag", ["gradient_clip_val=-1", "checkpoint_minutes=-1", "strategy=deepspeed", "validate_every=0"]
)
def test_invalid_trainer_options_are_rejected(folder: Path, capsys, flag: str) -> None:
    assert again(folder, f"--trainer.{flag}") == 2
    assert flag.partition("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize("name", [".", "..", "../x", "a/b"])
def test_run_name_must_be_one_folder(tmp_path: Path, capsys, name: str) -> None:
    assert main(["train", "compressor", *TINY, "--name", name, "--runs", str(tmp_path / "runs")]) == 2
    assert f"invalid --name '{name}'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
