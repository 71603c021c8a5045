"""Every verb accepts published files in place of a run folder."""

from pathlib import Path

import pytest

from genstack.checkpoints import model_file
from genstack.cli.main import main
from genstack.cli.verb import verbs
from genstack.cli.verbs.report import load_run

GOLDEN = Path(__file__).parents[1] / "golden"
PICTURES = [str(GOLDEN / "images" / f"{name}.png") for name in ("rgba", "plain_reference")]
NOTES = {"openai_dvae": "resolution: 16", "taming_net2net_class.ckpt": "heads: 4\nclasses: 32"}
FILES = ["openai_dvae", "taming_net2net_class.ckpt"]  # a folder of two files, and one with a prior
DATA = ["--data.source", "shapes:30", "--data.batch_size", "2"]
SMALL = ["--data.resolution", "16", "--trainer.max_steps", "1"]
PRIOR = ["--model.prior", "Autoregressive"]
PRIOR += [
    f"--model.prior.backbone.{name}={value}" for name, value in (("width", 16), ("depth", 1), ("heads", 2))
]

#: What is done to a file by each verb, and which of the files it makes no sense for.
COMMANDS = {
    "decode": ["decode", "FILE", PICTURES[0], "--change", "0=1"],
    "encode": ["encode", "FILE", "codes", *DATA],
    "evaluate": ["evaluate", "FILE", "--lpips", "none", "--batch-size", "4", *DATA],
    "export": ["export", "FILE", "--to", "safetensors", "--out", "exported"],
    "import": ["import", "FILE", "--out", "run"],
    "interpolate": ["interpolate", "FILE", *PICTURES],
    "plan": ["plan", "prior", "--compressor", "FILE", *DATA, *SMALL, *PRIOR],
    "reconstruct": ["reconstruct", "FILE", "--source", "shapes:4", "--count", "2"],
    "report": ["report", "FILE", "--samples", "2"],
    "sample": ["sample", "FILE", "--count", "2", "--out", "samples"],
    "train": ["train", "prior", "--compressor", "FILE", "--name", "prior", *DATA, *SMALL, *PRIOR],
    "train a compressor": ["train", "compressor", "--init", "FILE", *DATA, *SMALL],
    "train a prior on": ["train", "prior", "--compressor", "FILE", "--init", "FILE", *DATA, *SMALL],
}
WITHOUT_A_RUN = {"config", "data", "demo", "doctor", "weights"}
SERVES = {"web"}  # until it is stopped: tests/web
NEEDS_A_PRIOR = {"sample", "train a prior on"}
#: What each leaves behind.
LEFT = {
    "decode": "decoded.png",
    "encode": "codes/codes.json",
    "evaluate": "FILE.evaluation/card.json",
    "export": "exported/model.safetensors",
    "import": "run/model.safetensors",
    "interpolate": "interpolation.png",
    "reconstruct": "reconstructions.png",
    "report": "FILE.report.html",
    "sample": "samples/00001.png",
    "train": "runs/prior/model.safetensors",
    "train a compressor": "runs/compressor/model.safetensors",
    "train a prior on": "runs/prior/model.safetensors",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to stand in, with published files and their notes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("genstack.cli.verbs.evaluate.SAMPLES", 16)
    for name, note in NOTES.items():
        Path(name).symlink_to(GOLDEN / name)
        Path(f"{name}.yaml").write_text(note)


def test_every_verb_is_tested():
    assert {words[0] for words in COMMANDS.values()} | WITHOUT_A_RUN | SERVES == set(verbs())


@pytest.mark.slow
@pytest.mark.filterwarnings("default:.*:UserWarning")
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("command", COMMANDS)
def test_published_file_is_accepted(command, file, here, capsys):
    words = [file if word == "FILE" else word for word in COMMANDS[command]]
    code = main(words)
    told = capsys.readouterr()
    if file == "openai_dvae" and command in NEEDS_A_PRIOR:
        assert code == 2 and told.err.count("\n") == 1
        assert "is a compressor; train a prior on it" in told.err or "has no prior" in told.err
        return
    assert not code, told.err
    left = LEFT.get(command, "").replace("FILE", file)
    assert Path(left).exists()
    if command == "evaluate":
        assert list(load_run(Path(file), "cpu").cards) == ["card.json"], "a report must find the card"


def test_presets_are_saved_in_runs_only(here, capsys):
    assert main(["sample", "taming_net2net_class.ckpt", "--top-k", "3", "--save-preset", "few"]) == 2
    assert "presets are saved in runs" in capsys.readouterr().err


def test_unknown_classes_are_rejected(here, capsys):
    Path("taming_net2net_class.ckpt.yaml").write_text("heads: 4\nclasses: 3")
    words = ["evaluate", "taming_net2net_class.ckpt", "--lpips", "none", *DATA]
    assert main(words) == 2
    assert "classes, but the prior knows 3" in capsys.readouterr().err
    assert model_file.load(Path("taming_net2net_class.ckpt")).classes == ("0", "1", "2")
