"""The whole road by the public command line: a folder of pictures becomes samples."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from genstack.cli.main import main

ROOT = Path(__file__).parents[1]
COMPRESSOR = """
    --data.source pictures --data.labels folder --data.resolution 16,24 --data.batch_size 8
    --data.validation 0.2 --model.compressor Autoencoder --model.compressor.network Convolutional
    --model.compressor.network.dim 8 --model.compressor.network.width 8
    --model.compressor.network.multipliers 1,1,2 --model.compressor.network.blocks 1
    --model.compressor.network.attention [] --model.compressor.quantizer VectorQuantizer
    --model.compressor.quantizer.codebook_size 32 --trainer.max_steps 12 --trainer.accelerator cpu
    --log.images 8 --name pets"""
PRIOR = """
    --compressor runs/pets --model.prior Autoregressive --model.prior.backbone.width 16
    --model.prior.backbone.depth 1 --model.prior.backbone.heads 2 --trainer.max_steps 12
    --trainer.accelerator cpu --log.images 8 --name pets-prior"""


@pytest.fixture(scope="module")
def road(tmp_path_factory, start) -> Path:
    """A folder with pictures, both runs, and samples of them."""
    folder = tmp_path_factory.mktemp("road")
    chance = np.random.default_rng(0)
    for number in range(32):
        kind, size = ("cat", "wild dog")[number % 2], (*chance.integers(9, 60, 2), 3)
        pixels = chance.integers(0, 256, size, dtype=np.uint8)
        (folder / "pictures" / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "pictures" / kind / f"{number}.png")
    sample = "runs/pets-prior --count 5 --seed 3 --out samples --classes #1,cat --device cpu"
    for name, words in (
        ("train.py", f"compressor {COMPRESSOR}"),
        ("train.py", f"prior {PRIOR}"),
        ("sample.py", sample),
    ):
        status, _, errors = start(str(ROOT / name), *words.split(), cwd=folder).finish()
        assert status == 0, errors
    return folder


def sample(folder, monkeypatch, *words):
    """More samples, in this process."""
    monkeypatch.chdir(folder)
    return main(["sample", "runs/pets-prior", *words])


def same(one, other):
    """The names of pictures whose pixels are equal in two folders."""
    pictures = sorted(path.name for path in one.glob("*.png"))
    return [name for name in pictures if (pixels(one / name) == pixels(other / name)).all()]


def pixels(path):
    with Image.open(path) as picture:
        return np.array(picture, dtype=int)


def width(path):
    """Of a picture, in pixels."""
    with Image.open(path) as picture:
        return picture.width


pytestmark = pytest.mark.slow


def test_samples_record_their_options(road):
    cards = [json.loads(line) for line in (road / "samples" / "samples.jsonl").read_text().splitlines()]
    assert [card["file"] for card in cards] == [f"{number:05d}.png" for number in range(5)]
    assert [card["class"] for card in cards] == ["wild dog", "cat", "wild dog", "cat", "wild dog"]
    for card in cards:
        with Image.open(road / "samples" / card["file"]) as picture:
            assert (picture.size, picture.mode) == ((24, 16), "RGB")
            assert json.loads(picture.info["genstack"]) == card
        assert (card["seed"], card["temperature"], card["guidance"]) == (3, 1.0, 1.0)
    assert width(road / "samples.png") > 5 * 24


def test_runs_explain_themselves(road):
    for name, prior in (("pets", None), ("pets-prior", "Autoregressive")):
        folder = road / "runs" / name
        model = json.loads((folder / "model.json").read_text())
        assert model["format_version"] == 2
        assert model["classes"] == ["cat", "wild dog"]
        assert (model["preprocessing"]["height"], model["preprocessing"]["width"]) == (16, 24)
        assert model["layout"]["grids"] == [[4, 6]]
        assert (model["prior"] or {}).get("class") == prior
        assert model["made"]["step"] <= 12
        assert (folder / "images" / "00000012.png").exists()
        assert (folder / "metrics.jsonl").read_text().count('"val/') > 0


def test_priors_inherit_the_data_of_their_compressor(road):
    data, inherited = (
        yaml.safe_load((road / "runs" / name / "config.yaml").read_text())["data"]
        for name in ("pets", "pets-prior")
    )
    assert inherited == data
    assert data["resolution"] in ("16,24", [16, 24])


def test_reconstructions_are_a_sheet(road, monkeypatch, capsys):
    monkeypatch.chdir(road)
    words = ["runs/pets", "--count", "2", "--out", "pairs.png", "--device", "cpu"]
    assert main(["reconstruct", *words]) is None
    assert "dB over 2 images" in capsys.readouterr().out
    assert width(road / "pairs.png") > 4 * 24
    assert main(["reconstruct", "runs/pets-prior", "--source", "pictures/cat", "--device", "cpu"]) is None


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_image_depends_only_on_its_seed_and_index(road, monkeypatch, batch_size):
    """Codes are equal; pixels may round differently by one level of 255."""
    out = f"again-{batch_size}"
    words = ("--seed", "3", "--out", out, "--classes", "#1,cat")
    assert sample(road, monkeypatch, "--count", "7", "--batch-size", str(batch_size), *words) is None
    for path in sorted((road / "samples").glob("*.png")):
        assert abs(pixels(path) - pixels(road / out / path.name)).max() <= 1


def test_the_same_again_is_the_same_bytes(road, monkeypatch):
    words = ("--count", "5", "--seed", "3", "--out", "twin", "--classes", "#1,cat")
    assert sample(road, monkeypatch, *words) is None
    for path in (road / "samples").iterdir():
        assert path.read_bytes() == (road / "twin" / path.name).read_bytes()
    words = ("--count", "5", "--seed", "4", "--out", "other", "--classes", "#1,cat")
    assert sample(road, monkeypatch, *words) is None
    assert same(road / "samples", road / "other") == []


def test_existing_samples_are_kept(road, monkeypatch, capsys):
    words = ("--seed", "8", "--out", "kept")
    assert sample(road, monkeypatch, "--count", "2", *words) is None
    times = {path: path.stat().st_mtime_ns for path in (road / "kept").glob("*.png")}
    assert sample(road, monkeypatch, "--count", "2", *words) is None
    assert "2 images in kept (0 new)" in capsys.readouterr().out
    assert sample(road, monkeypatch, "--count", "3", *words) is None
    assert "3 images in kept (1 new)" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in times} == times
    (road / "kept" / "00001.png").unlink()
    assert sample(road, monkeypatch, "--count", "3", *words) is None
    assert "(1 new)" in capsys.readouterr().out, "a gap is filled"


@pytest.mark.parametrize(
    "other", [("--seed", "4"), ("--temperature", "0.5"), ("--top-k", "3"), ("--classes", "cat")]
)
def test_other_archives_are_not_mixed(road, monkeypatch, other, capsys):
    before = {path: path.read_bytes() for path in (road / "samples").iterdir()}
    settings = {"--seed": "3", "--classes": "#1,cat"} | dict([other])
    words = [word for pair in settings.items() for word in pair]
    assert sample(road, monkeypatch, "--count", "5", "--out", "samples", *words) == 2
    assert "choose another folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (road / "samples").iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classes", "cta"], "unknown class 'cta'; did you mean 'cat'?"),
        (["--classes", "#2"], "unknown class '#2'; the classes are cat, wild dog"),
        (["--count", "0"], "count must be at least 1, got 0"),
        (["--top-p", "0"], "top_p must be above 0 and at most 1, got 0.0"),
        (["--temprature", "1"], "unknown option '--temprature'; did you mean '--temperature'?"),
        (["--device", "cpuu"], "device 'cpuu' is not available; use auto, cpu, cuda or mps"),
    ],
)
def test_mistakes_end_in_one_line(road, monkeypatch, words, message, capsys):
    assert sample(road, monkeypatch, "--out", "never", *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (road / "never").exists()


@pytest.mark.parametrize(
    ("place", "message"), [("runs/pets", "is a compressor; train a prior on it"), ("runs", "holds no model")]
)
def test_what_cannot_be_sampled(road, monkeypatch, place, message, capsys):
    monkeypatch.chdir(road)
    assert main(["sample", place]) == 2
    assert message in capsys.readouterr().err
