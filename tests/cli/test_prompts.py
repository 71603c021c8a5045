"""Prompts on the command line: metadata of samples, and errors."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from genstack.checkpoints.model_file import load, save
from genstack.cli.main import main
from genstack.cli.parsing.prompts import PromptFlags, class_names
from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer
from genstack.conditions import Captions, ConditionImage, Coordinates
from genstack.data.images import Preprocessing
from genstack.errors import UserError
from genstack.inputs import ConditionInputs, DataInfo
from genstack.model import Model
from genstack.prior import Autoregressive, SamplingOptions
from genstack.transformer import Backbone

OFFER = DataInfo((), lambda: ["a red circle", "a blue ring"] * 2, (3, 16, 24), crops_vary=True)


def run(folder, condition):
    """A run of both stages that learned nothing."""
    network = Convolutional(4, 4, (1, 1, 1, 1), 1, (), False)
    compressor = Autoencoder(3, network, VectorQuantizer(7, 3))
    prior = Autoregressive(compressor.layout(16, 24), condition.fit(OFFER), Backbone(16, 1, 4))
    torch.nn.init.normal_(prior.head.weight)
    save(Model(compressor.eval(), Preprocessing(3, 16, 24), (), prior.eval()), folder)


def sample(*words):
    return main(["sample", "run", "--device", "cpu", *words])


def chunks(folder):
    return [json.loads(chunk(path)) for path in sorted(folder.glob("*.png"))]


def chunk(path):
    with Image.open(path) as picture:
        return picture.info["genstack"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_captions_are_cycled_and_recorded(here):
    run(here / "run", Captions(length=16))
    (here / "asked.txt").write_text("a red circle\r\n\n  größe\u2028漢\n", encoding="utf-8")
    assert sample("--captions", "asked.txt", "--count", "3", "--guidance", "2") is None
    assert [told["caption"] for told in chunks(here / "samples")] == [
        "a red circle",
        "größe\u2028漢",
        "a red circle",
    ]
    lines = (here / "samples" / "samples.jsonl").read_text(encoding="utf-8").strip().split("\n")
    assert [json.loads(line)["caption"] for line in lines] == [
        "a red circle",
        "größe\u2028漢",
        "a red circle",
    ]
    assert sample("--caption", "a blue ring", "--count", "2", "--out", "blue") is None
    assert {told["caption"] for told in chunks(here / "blue")} == {"a blue ring"}
    assert sample("--count", "2", "--out", "any") is None
    assert "caption" not in chunks(here / "any")[0]
    assert sample("--caption", "a red circle", "--count", "2", "--out", "blue") == 2, "another set"


def test_condition_images_of_a_folder_are_cycled(here):
    run(here / "run", ConditionImage(view="edges", patch=8))
    (here / "maps" / "deep").mkdir(parents=True)
    for name in ("deep/2.png", "10.jpg"):
        pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(here / "maps" / name)
    assert sample("--condition-images", "maps", "--count", "3") is None
    names = [told["condition_image"] for told in chunks(here / "samples")]
    assert names == ["10.jpg", "deep/2.png", "10.jpg"]
    (here / "maps" / "deep" / "2.png").unlink()
    Image.new("RGB", (60, 40), "red").save(here / "maps" / "deep" / "2.png")
    assert sample("--condition-images", "maps", "--count", "3") == 2, "another map of the same name"
    assert sample("--condition-images", "maps", "--count", "1") is None


def test_windows_see_their_part_of_condition_images(here, monkeypatch):
    seen = []
    encode = ConditionImage.encode
    monkeypatch.setattr(
        ConditionImage, "encode", lambda self, inputs: seen.append(inputs.images) or encode(self, inputs)
    )
    run(here / "run", ConditionImage(patch=8))
    (here / "maps").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(here / "maps" / "1.png")
    assert sample("--condition-images", "maps", "--count", "2", "--size", "32x40") is None
    wanted = torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1
    parts = {(0, 0), (8, 0), (16, 0), (0, 16), (8, 16), (16, 16)}
    assert len(seen) == len(parts)
    for top, left in parts:
        part = wanted[:, top : top + 16, left : left + 24]
        assert sum(torch.allclose(one[0], part, atol=1e-6) for one in seen) == 1, (top, left)
    model = load(here / "run")
    inputs = ConditionInputs(torch.zeros(1, dtype=torch.int64), images=torch.zeros(1, 3, 16, 24))
    with pytest.raises(UserError, match="must have the size of the samples, 32x40, got 16x24"):
        model.sample(inputs, SamplingOptions(), 0, [0], (32, 40))


def test_coordinates_are_cycled(here):
    run(here / "run", Coordinates())
    assert sample("--coordinates", "0,0,0.5,0.5 0.5,0,1,1", "--count", "2") is None
    assert [told["coordinates"] for told in chunks(here / "samples")] == ["0,0,0.5,0.5", "0.5,0,1,1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--caption", "a" * 99], "tokens, the prior reads 8; shorten it"),
        (["--caption", "a", "--captions", "x"], "--caption and --captions exclude each other"),
        (["--captions", "nowhere.txt"], "--captions nowhere.txt not found"),
        (["--captions", "empty.txt"], "--captions empty.txt holds no captions"),
        (["--condition-images", "nowhere"], "--condition-images: folder 'nowhere' not found"),
        (["--out", ""], "--out is empty; expected path"),
        (["--coordinates", "1,2"], "invalid --coordinates '1,2': expected top,left,bottom,right"),
        (
            ["--classes", "cat"],
            "does not read classes; use --caption or --captions instead of --classes",
        ),
    ],
)
def test_errors_are_one_line(here, words, message, capsys):
    run(here / "run", Captions(length=8))
    (here / "empty.txt").write_text("\n \n")
    assert sample(*words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (here / "samples").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("cat, #3", ("cat", "#3")),
        ("tench, Tinca tinca,cat", ("tench, Tinca tinca", "cat")),
        (" tench, Tinca tinca , x", ("tench, Tinca tinca", "x")),
        ("cat,tench,,#0", ("cat", "tench", "#0")),
        ("a,b,c,a,b,#7", ("a,b,c", "a,b", "#7")),
    ],
)
def test_class_names_may_contain_commas(text, expected):
    assert class_names(text, ("cat", "tench, Tinca tinca", "a", "a,b", "a,b,c", "#7")) == expected


def test_class_names_may_begin_with_a_space_and_have_accents_in_either_form():
    known = (" lead", "caf\u00e9", "cat")
    assert class_names(" lead,cafe\u0301, cat", known) == known


def test_empty_class_list_is_rejected():
    with pytest.raises(UserError, match="--classes ',' holds no class name"):
        class_names(",", ("cat",))


def test_prompts_from_a_non_utf8_terminal():
    typed = os.fsdecode(b"caf\xe9")
    prompts = PromptFlags(classes=f"{typed},b", caption=typed).prompts(
        Preprocessing(3, 8, 8), 1, ("café", "b")
    )
    assert prompts.classes == ("café", "b") and prompts.captions == ("café",)
