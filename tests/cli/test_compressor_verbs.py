"""`genstack decode`, `interpolate` and `reconstruct` on a small compressor with random weights."""

import json
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
from genstack.data import ImageData
from genstack.data.images import CHUNK, Preprocessing, read_mark, save_all
from genstack.errors import UserError
from genstack.evaluation.folders import are_pairs
from genstack.evaluation.reference import ReferenceSet
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


def written(folder: str, count: int) -> list[np.ndarray]:
    """Pixels of the images in a folder, which hold their index."""
    found = []
    for index in range(count):
        with Image.open(Path(folder) / f"0000{index}.png") as image:
            assert json.loads(image.info[CHUNK])["index"] == index
            found.append(np.asarray(image))
    return found


def test_an_interpolation_is_a_sheet_or_a_folder():
    Image.new("RGB", (24, 16), "red").save("red.png")
    command = ["interpolate", "run", "picture.png", "red.png", "--count", "3", "--device", "cpu"]
    assert main([*command, "--out", "pictures"]) is main([*command, "--out", "sheet.png"]) is None
    model = genstack.load("run")
    ends = [model.decode(model.encode(Image.open(name)))[0] for name in ("picture.png", "red.png")]
    first, _, last = written("pictures", 3)
    assert np.array_equal(first, np.asarray(ends[0])) and np.array_equal(last, np.asarray(ends[1]))
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 3 * 24


def test_reconstructions_are_a_sheet_or_two_folders():
    Path("source").mkdir()
    Path("picture.png").rename("source/picture.png")
    command = ["reconstruct", "run", "--source", "source", "--count", "1", "--device", "cpu"]
    assert main([*command, "--out", "pictures"]) is main([*command, "--out", "sheet.png"]) is None
    (image,), (again,) = written("pictures/images", 1), written("pictures/reconstructions", 1)
    model = genstack.load("run")
    assert image.shape == (16, 24, 3)
    assert np.array_equal(again, np.asarray(model.decode(model.encode(Image.fromarray(image)))[0]))


def test_saved_reconstructions_are_pairs_and_samples_are_not():
    for folder in ("images", "reconstructions", "samples"):
        images = torch.zeros(2, 3, 16, 24)
        save_all(images, Path(folder), Preprocessing(3, 16, 24), {"seed": 0} if folder == "samples" else {})
    folders = ("images", "reconstructions", "samples")
    real, again, samples = (ReferenceSet(ImageData(folder, (16, 24)), "all") for folder in folders)
    assert are_pairs(real, again) and not are_pairs(real, samples)


def test_codes_are_not_written_among_other_files(capsys):
    Path("source").mkdir()
    Path("picture.png").rename("source/picture.png")
    before = sorted(Path("source").iterdir())
    assert (
        main(["encode", "run", "--data.source", "source", "--data.resolution", "[16,24]", "--out", "source"])
        == 2
    )
    assert "source holds other files, such as picture.png; choose another --out" in capsys.readouterr().err
    assert sorted(path for path in Path("source").iterdir() if path.name[0] != ".") == before


def test_what_is_not_read_is_named_wherever_pictures_are_read(capsys):
    Path("source").mkdir()
    Path("picture.png").rename("source/picture.png")
    Path("source/more.heic").touch()
    data = ["--data.source", "source", "--data.resolution", "[16,24]"]
    assert main(["encode", "run", *data, "--out", "codes", "--device", "cpu"]) is None
    assert "source also holds, unread: 1 .heic files\n" in capsys.readouterr().err


def test_a_report_replaces_no_other_file(capsys):
    Path("notes.txt").write_text("mine")
    assert main(["report", "run", "--out", "notes.txt"]) == 2
    assert "notes.txt exists, and is no HTML page; choose another --out" in capsys.readouterr().err
    assert Path("notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["~nobody-has-this-name", "~nobody-has-this-name/a.csv", "~nobody/*.tar"])
def test_a_home_that_does_not_exist_is_one_line(name, capsys):
    assert main(["data", "check", name]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "flag", ["temperature", "precision", "split", "perturb", "seed", "training", "preset"]
)
def test_a_comparison_of_folders_refuses_flags_of_runs(flag, capsys):
    save_all(torch.zeros(2, 3, 16, 24), Path("a"), Preprocessing(3, 16, 24))
    values = {"precision": "bf16", "split": "training", "preset": "fid", "training": "50"}
    assert main(["evaluate", "a", "a", f"--{flag}", values.get(flag, "0.5" if flag != "seed" else "5")]) == 2
    assert f"--{flag} applies to a run, not to folders; leave it out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("sheet.jpg", "expected a name that ends in .png"),
        ("notes", "notes is a file; expected a name that ends in .png, or a folder"),
        ("taken", "taken/00001.png exists, and genstack did not write it"),
        ("samples", "samples holds other files, such as 00003.png; choose another --out"),
        ("folder.png", "folder.png is a folder; choose another --out"),
    ],
)
def test_no_file_of_others_is_replaced(out, message, capsys):
    Path("notes").write_text("mine")
    Path("taken").mkdir()
    save_all(torch.zeros(4, 3, 16, 24), Path("samples"), Preprocessing(3, 16, 24))
    Path("folder.png").mkdir()
    Image.new("RGB", (24, 16), "red").save("taken/00001.png")
    before = Path("taken/00001.png").read_bytes()
    assert main(["interpolate", "run", "picture.png", "picture.png", "--count", "3", "--out", out]) == 2
    assert message in capsys.readouterr().err
    assert Path("notes").read_text() == "mine" and Path("taken/00001.png").read_bytes() == before


def test_latents_have_no_codes_to_change(capsys):
    assert main(["decode", "vae", "picture.png"]) == 2
    assert "no codes" in capsys.readouterr().err
