"""A plugin with a part of each kind: all keep the laws, and every command uses them as a user would."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from genstack import plugins, testing
from genstack.cli.main import main
from genstack.cli.parsing.source import plugin_classes
from genstack.cli.verbs.config import BASES
from genstack.compressor import Autoencoder, Strided
from genstack.compressor.quantizers import FSQ

FILE = Path(__file__).parent / "one_of_each.py"
DATA = ["--data.source", "grey", "--data.resolution", "8", "--data.batch-size", "4"]
STEPS = ["--trainer.max-steps", "3", "--log.images", "4"]
COMPRESSOR = ["--model.compressor", "Autoencoder", "--model.compressor.network", "Quarter"]


@pytest.fixture(autouse=True)
def only_this_plugin(monkeypatch, tmp_path_factory):
    monkeypatch.setenv(plugins.FOLDERS, "")
    monkeypatch.setattr(plugins, "__path__", [])


def run(*words):
    """Run a command with the plugin."""
    assert main([*map(str, words), "--plugin", str(FILE)]) in (None, 0)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file in the format of the plugin."""
    model = Autoencoder(3, Strided(8, 4, 1, 6), FSQ((5, 3)))
    path = tmp_path_factory.mktemp("published") / "strided.safetensors"
    save_file(model.state_dict() | {"one_of_each.levels": torch.tensor([5, 3])}, path)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two compressors, with codes and without."""
    folder = tmp_path_factory.mktemp("runs")
    losses = ["--model.reconstruction", "Charbonnier", "--model.reconstruction.width", "0.1"]
    own = ["--model.compressor.quantizer", "Flips", "--model.compressor.output", "Bounded"]
    adversary = ["--model.adversary", "Adversary", "--model.adversary.loss", "LeastSquares"]
    common = ["train", "compressor", *DATA, *STEPS, *COMPRESSOR, "--runs", folder, "--name"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "__path__", [])
        blurred = ["--model.perceptual", "Blurred", "--model.adversary.discriminator", "Pixelwise"]
        run(*common, "codes", *own, *losses, *adversary, *blurred)
        colours = [
            "--model.perceptual",
            "ClassifierDistance",
            "--model.perceptual.features",
            "AverageColours",
        ]
        frozen = "FeatureDiscriminator", "--model.adversary.discriminator.features", "AverageColours"
        bottleneck = ["--model.compressor.quantizer", "Gaussian", "--model.compressor.quantizer.dim", "4"]
        run(*common, "latents", *bottleneck, *colours, *adversary, "--model.adversary.discriminator", *frozen)
    return folder


def test_there_is_one_of_each():
    with plugins.use_temporarily([FILE]):
        parts = plugins.classes()
        listed = {part.node.name for part in plugin_classes(plugins.active()) if part.concrete}
        assert listed == {part.__name__ for part in parts}
    bases = {path.rpartition(".")[2] for path in BASES.values()} - {"Compressor"}
    for base in bases | {"Network", "Bottleneck"}:
        assert any(base in {one.__name__ for one in part.__mro__} for part in parts), base
    assert len([part for part in parts if testing.laws_of(part)]) == len(testing.LAWS)


def test_laws_that_need_a_file_are_skipped_without(tmp_path, capsys):
    head, _, rest = FILE.read_text().partition("class Flips(")
    body = rest.partition("class StridedFSQ(")[2].partition("\n\n\n")[0]
    (tmp_path / "alone.py").write_text(f"{head}class StridedFSQ({body}\n")
    assert main(["config", "check", str(tmp_path / "alone.py")]) == 0
    said = capsys.readouterr().out
    assert (
        "skipped  missing tensors are refused\n           give a file" in said
        and "2 of 8 laws hold, 6 skipped" in said
    )


def test_all_keep_their_laws(published, capsys):
    assert main(["config", "check", str(FILE), "--example", str(published)]) == 0
    said = capsys.readouterr().out
    assert said.count(" laws hold") == len(testing.LAWS) and not {"broken", "skipped"} & {*said.split()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compressor", "prior"),
    [
        ("codes", ["Places", "--model.prior.width", "8"]),
        ("codes", ["Masked", "--model.prior.order", "Backwards", "--model.prior.backbone.depth", "1"]),
        ("latents", ["Bell"]),
    ],
    ids=["codes", "order", "latents"],
)
def test_priors_train_sample_and_are_measured(compressor, prior, runs, tmp_path, capsys):
    flags = ["--model.prior", *prior, "--model.condition", "WordCount", "--runs", tmp_path]
    run("train", "prior", "--compressor", runs / compressor, *flags, *STEPS)
    place = tmp_path / "prior"
    run("sample", place, "--count", "3", "--caption", "a grey square", "--out", tmp_path / "samples")
    assert len([*(tmp_path / "samples").glob("*.png")]) == 3
    if "Bell" in prior:
        run("evaluate", place, "--samples", "20", "--lpips", "none", "--out", tmp_path / "card")
        assert "near-copies-Means" in (tmp_path / "card" / "card.json").read_text()
    run("export", place, "--to", "names", "--out", tmp_path / "exported")
    assert (tmp_path / "exported" / "names.txt").read_text()
    run("train", "resume", place)
    run("report", runs / compressor, place, "--out", tmp_path / "report.html")
    capsys.readouterr()
    assert main(["sample", str(place), "--count", "1"]) == 2
    assert "was made with plugin one_of_each.py" in capsys.readouterr().err


def test_compressors_are_used(runs, tmp_path):
    run("reconstruct", runs / "codes", "--source", "grey:6", "--out", tmp_path / "pairs.png")
    run("encode", runs / "codes", "--out", tmp_path / "archive")
    picture = next((runs / "latents" / "images").iterdir())
    run("interpolate", runs / "latents", picture, picture, "--out", tmp_path / "way.png")
    run("plan", "compressor", *DATA, *COMPRESSOR, "--model.compressor.quantizer", "Flips")


def test_published_files_are_read(published, tmp_path, capsys):
    run("import", "--list")
    assert "strided network of a test" in capsys.readouterr().out
    run("import", published, "--resolution", "16", "--out", tmp_path / "run")
    assert "FSQ" in (tmp_path / "run" / "model.json").read_text()
    run("reconstruct", published, "--source", "grey:6", "--out", tmp_path / "pairs.png")
