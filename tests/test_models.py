"""Models that come with genstack: their names stand wherever a run is accepted."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import genstack
from genstack import models
from genstack.checkpoints import model_file
from genstack.cli.main import main
from genstack.cli.parsing.paths import path_beside
from genstack.compressor import Autoencoder, Strided
from genstack.compressor.quantizers import FSQ
from genstack.conditions import ClassLabels
from genstack.data.images import Preprocessing
from genstack.model import Model
from genstack.prior import Autoregressive, SamplingOptions
from genstack.transformer import Backbone

LARGEST = 12_000_000  # bytes of a model in the package


def tiny() -> Model:
    compressor = Autoencoder(3, Strided(8, 4, 1, 4), FSQ()).eval().requires_grad_(False)
    model = Model(compressor, Preprocessing(3, 16, 24))
    prior = Autoregressive(model.layout, ClassLabels(("a", "b")), Backbone(width=16, depth=1, heads=2)).eval()
    return Model(compressor, model.preprocessing, ("a", "b"), prior.requires_grad_(False))


@pytest.mark.parametrize("name", models.known())
def test_models_of_the_package_are_small_and_answer_captions(name):
    folder = models.known()[name]
    assert sum(file.stat().st_size for file in folder.iterdir()) <= LARGEST
    assert all(
        f"\n## {part}\n" in (folder / models.CARD).read_text() for part in ("Data and licence", "Limits")
    )
    model = genstack.load(name)
    inputs = model.inputs(1, captions=("a red apple",))
    images = model.sample(inputs, model.options(), seed=0, indices=[0])
    assert images.isfinite().all() and images.shape[1:] == model.preprocessing.shape
    assert images.std() > 0.1


def test_the_package_has_a_model():
    assert "clipart" in models.known()


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A package with one model, `toy`, and a working folder of its own."""
    home = tmp_path / "package"
    monkeypatch.setattr(models, "HOME", home)
    model_file.save(tiny(), tmp_path / "run")
    assert not main(["export", str(tmp_path / "run"), "--out", str(home / "toy"), "--half"])
    (home / "toy" / "README.md").write_text("# Toys by class\n\nTrained on nothing.\n")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return home / "toy"


def test_half_precision_halves_a_file_and_is_read_as_fp32(tmp_path, shipped):
    whole, half = (load_file(folder / "model.safetensors") for folder in (tmp_path / "run", shipped))
    floats = [name for name, tensor in whole.items() if tensor.is_floating_point()]
    assert floats and all(half[name].dtype == torch.float16 for name in floats)
    assert all(torch.equal(half[name], whole[name].to(half[name].dtype)) for name in whole)
    loaded = genstack.load("toy").modules().state_dict()
    assert all(torch.equal(loaded[name], half[name].to(whole[name].dtype)) for name in whole)


def test_half_precision_of_other_formats_is_rejected(tmp_path, shipped, capsys):
    command = ["export", str(tmp_path / "run"), "--to", "onnx", "--out", "out", "--half"]
    assert main(command) == 2
    assert "export onnx has no half precision; use --to safetensors" in capsys.readouterr().err


def test_samples_come_by_name_and_lie_in_the_working_folder(shipped, capsys):
    assert not main(["sample", "toy", "--count", "2", "--classes", "b", "--out", "drawn", "--device", "cpu"])
    assert not main(
        ["sample", str(shipped), "--count", "2", "--classes", "b", "--out", "again", "--device", "cpu"]
    )
    assert [Path("drawn", f"{name}.png").read_bytes() for name in ("00000", "00001")] == [
        Path("again", f"{name}.png").read_bytes() for name in ("00000", "00001")
    ]
    assert path_beside(shipped, "evaluation") == Path("toy.evaluation")
    before = (shipped / "model.safetensors").read_bytes()
    assert main(["sample", "toy", "--temperature", "0.5", "--save-preset", "mine"]) == 2
    assert "comes with genstack and is not changed" in capsys.readouterr().err
    assert (shipped / "model.safetensors").read_bytes() == before


@pytest.mark.slow
def test_a_compressor_of_the_package_gets_a_prior(shipped):
    command = ["train", "prior", "--compressor", "toy", "--data.source", "shapes:40", "--dry-run"]
    sizes = {"width": 16, "depth": 1, "heads": 2}
    small = [f"--model.prior.backbone.{name}={size}" for name, size in sizes.items()]
    assert not main([*command, "--data.batch_size", "4", "--model.prior", "Autoregressive", *small])


def test_a_folder_of_the_same_name_is_written_with_a_slash(shipped):
    model_file.save(tiny(), Path("toy"))
    with pytest.warns(UserWarning, match=r"^'toy' is the model that comes with genstack; .* is './toy'$"):
        assert models.locate("toy") == str(shipped)
    assert models.locate("./toy") == "./toy"
    assert model_file.identity(genstack.load("./toy")) != ""
    assert models.locate("other") == "other"


def test_a_preset_named_default_is_the_default(shipped):
    model = genstack.load("toy")
    assert model.options() == SamplingOptions()
    model.save_preset("default", SamplingOptions(temperature=0.7))
    assert model.options().temperature == 0.7
    assert model.options(given={"temperature": 1.1}).temperature == 1.1
    assert model.options("fid") == SamplingOptions()


def test_sampling_names_the_options_of_the_default_preset(shipped, capsys):
    model = genstack.load("toy")
    model.save_preset("default", SamplingOptions(temperature=0.7))
    model_file.save(model, shipped)
    assert not main(["sample", "toy", "--count", "1"])
    assert "using the model's preset 'default': temperature 0.7" in capsys.readouterr().err
    assert not main(["sample", "toy", "--count", "1", "--preset", "fid", "--out", "other"])
    assert "preset default" not in capsys.readouterr().err


def test_models_are_listed_with_their_cards(shipped, capsys):
    assert not main(["config", "models"])
    assert capsys.readouterr().out.startswith("toy  Toys by class, ")
    assert not main(["config", "models", "toy"])
    assert capsys.readouterr().out == "# Toys by class\n\nTrained on nothing.\n"
    assert main(["config", "models", "tyo"]) == 2
    assert "unknown model 'tyo'; did you mean 'toy'?" in capsys.readouterr().err


def test_a_name_close_to_a_model_or_a_folder_is_suggested(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "flowers-prior").mkdir(parents=True)
    suggested = {"clipat": "clipart", "runs/flower-prior": "runs/flowers-prior"}
    for wrong, right in (suggested | {"flowers-prior": "runs/flowers-prior"}).items():
        assert main(["sample", wrong]) == 2
        assert f"{wrong} not found; did you mean {right}?\n" in capsys.readouterr().err
    assert main(["sample", "zzz"]) == 2
    assert "zzz not found; give a run folder, or a published file\n" in capsys.readouterr().err


def test_import_of_an_own_model_says_so(tmp_path, capsys):
    place = models.known()["clipart"]
    for name in (place, place / "model.safetensors"):
        assert main(["import", str(name), "--out", str(tmp_path / "run")]) == 2
        said = capsys.readouterr().err
        assert f"{name} is a model of genstack already; use it as it is" in said
        assert said.count("\n") == 1 and not (tmp_path / "run").exists()
