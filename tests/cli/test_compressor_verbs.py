"""`genstack decode` on a small compressor with random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genstack
from genstack.checkpoints.model_file import save
from genstack.cli.main import main
from genstack.cli.verbs.decode import parse_changes
from genstack.compressor import Autoencoder, Gaussian, Strided
from genstack.compressor.quantizers import FSQ
from genstack.data.images import Preprocessing, read_mark
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model

LAYOUT = CodeLayout((24, 40), 11, ((3, 5),))


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with a run of codes and one of latents, and a picture."""
    for name, bottleneck in (("run", FSQ((3, 3))), ("vae", Gaussian(4))):
        compressor = Autoencoder(3, Strided(8, 4, 1, 4), bottleneck)
        save(Model(compressor, Preprocessing(3, 16, 24)), tmp_path / name)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)


def test_without_changes_it_reconstructs(capsys):
    assert main(["decode", "run", "picture.png", "--device", "cpu"]) is None
    model = genstack.load("run")
    with Image.open("picture.png") as picture, Image.open("decoded.png") as decoded:
        (expected,) = model.decode(model.encode(picture))
        assert np.array_equal(np.asarray(decoded), np.asarray(expected))
    assert capsys.readouterr().out == "decoded.png: picture.png from 24 codes of 9, 0 changed\n"
    assert read_mark(Path("decoded.png")), "it is no data of a training in this folder"


def test_changed_codes_are_decoded():
    words = [
        "decode",
        "run",
        "picture.png",
        "--change",
        "0=8",
        "23=2",
        "--out",
        "other.png",
        "--device",
        "cpu",
    ]
    assert main(words) is None
    model = genstack.load("run")
    with Image.open("picture.png") as picture:
        codes = model.encode(picture)
    assert codes.dtype == torch.int64
    codes[0, 0], codes[0, 23] = 8, 2
    with Image.open("other.png") as decoded:
        assert np.array_equal(np.asarray(decoded), np.asarray(model.decode(codes)[0]))


def test_the_last_change_of_a_position_counts():
    assert parse_changes(("3=4,5=6", "3=2"), LAYOUT) == {3: 2, 5: 6}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("3", "invalid --change '3'; expected POSITION=CODE, such as 12=7"),
        ("3=x", "invalid --change '3=x'; expected POSITION=CODE"),
        ("-1=2", "invalid --change '-1=2'"),
        ("15=2", "position must be from 0 to 14, got 15"),
        ("3=11", "code must be from 0 to 10, got 11"),
    ],
)
def test_wrong_changes_are_refused(word, message):
    with pytest.raises(UserError, match=message):
        parse_changes((word,), LAYOUT)


def test_latents_have_no_codes_to_change(capsys):
    assert main(["decode", "vae", "picture.png"]) == 2
    assert "no codes" in capsys.readouterr().err
