"""`genstack sample` on a small model with random weights: flags and files."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from torch import nn

from genstack.checkpoints.model_file import save
from genstack.cli.main import main
from genstack.cli.parsing.sampling_options import parse_sweep
from genstack.cli.verbs.doctor import Finding
from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer
from genstack.conditions import ClassLabels
from genstack.data.images import Preprocessing
from genstack.model import Model
from genstack.prior import Autoregressive
from genstack.sampling import Series
from genstack.sampling.sweep import Sweep
from genstack.transformer import Backbone


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with a run, a picture and a mask of it."""
    network = Convolutional(
        dim=6, width=8, multipliers=(1, 1, 1), blocks=1, attention=(), middle_attention=False
    )
    compressor = Autoencoder(1, network, VectorQuantizer(16, 4))
    prior = Autoregressive(compressor.layout(16, 24), ClassLabels(("cat", "dog")), Backbone(24, 1, 3))
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.4)
    save(Model(compressor, Preprocessing(1, 16, 24), ("cat", "dog"), prior, {"step": 7}), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48), dtype=np.uint8)
    Image.fromarray(pixels).save("picture.png")
    mask = np.zeros_like(pixels)
    mask[16:, 24:] = 255
    Image.fromarray(mask).save("mask.png")
    return tmp_path


def sample(*words):
    """Three images in a folder `out`, unless the words say otherwise."""
    defaults = {"--count": "3", "--out": "out", "--device": "cpu"}
    rest = [word for name, value in defaults.items() if name not in words for word in (name, value)]
    return main(["sample", "run", *words, *rest])


def cards(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def pixels(path):
    with Image.open(path) as picture:
        return np.array(picture, dtype=int)


def pictures(folder):
    return np.stack([pixels(path) for path in sorted(folder.glob("*.png"))])


def test_all_options_are_passed_on(place):
    words = {
        "--temperature": "0.9",
        "--min-p": "0.05",
        "--guidance": "2",
        "--guidance-schedule": "cosine",
        "--guidance-interval": "0.1,0.9",
    }
    assert sample(*(word for pair in words.items() for word in pair)) is None
    (card, *_) = cards(place / "out")
    assert (card["temperature"], card["min_p"], card["guidance"]) == (0.9, 0.05, 2.0)
    assert (card["guidance_schedule"], card["guidance_interval"]) == ("cosine", [0.1, 0.9])


@pytest.mark.slow
def test_sweep_writes_one_table(place):
    assert sample("--sweep", "temperature=0.5,1.0", "guidance=1,2,4", "--seed", "5") is None
    folders = sorted(path.name for path in (place / "out").iterdir())
    assert folders == [f"temperature={t},guidance={g}" for t in ("0.5", "1.0") for g in ("1.0", "2.0", "4.0")]
    assert sample("--temperature", "1.0", "--guidance", "2", "--seed", "5", "--out", "alone") is None
    cell = place / "out" / "temperature=1.0,guidance=2.0"
    assert (cell / "00002.png").read_bytes() == (place / "alone" / "00002.png").read_bytes()
    cell_width, cell_height = 2 * (96 + 4) + 4, 2 * (64 + 4 + 14) + 4
    height, width = pixels(place / "out.png").shape[:2]
    assert width > 3 * cell_width and height > 2 * cell_height
    assert width < 3 * cell_width + 120 and height < 2 * cell_height + 40


def test_other_sizes_use_windows(place):
    assert sample("--size", "24x20") is None
    assert pictures(place / "out").shape == (3, 24, 20)
    assert cards(place / "out")[0]["size"] == [24, 20]
    assert sample("--size", "16x24", "--out", "same") is None
    assert sample("--out", "plain") is None
    assert (pictures(place / "same") == pictures(place / "plain")).all()


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (("--keep", "top:0.5"), (slice(0, 8), slice(None))),
        (("--keep", "right:0.25"), (slice(None), slice(18, 24))),
        (("--mask", "mask.png", "--classes", "dog"), (slice(0, 8), slice(None))),
    ],
)
def test_kept_pixels_do_not_change(place, words, kept, capsys):
    assert sample("--image", "picture.png", "--grow", "0", *words) is None
    shown = Image.open("picture.png").resize((24, 16), Image.Resampling.BICUBIC)
    drawn = pictures(place / "out")
    assert (drawn[0][kept] == drawn[1][kept]).all() and (drawn[0] != drawn[1]).any()
    assert abs(drawn[0][kept] - np.array(shown, dtype=int)[kept]).max() <= 2, "Pillow rounds otherwise"
    assert ("sees only earlier codes" in capsys.readouterr().err) == (words[1] != "top:0.5")
    assert cards(place / "out")[0]["image"].startswith("picture.png ")


@pytest.mark.slow
def test_outpainting_places_the_picture(place):
    words = ("--image", "picture.png", "--size", "24x32", "--grow", "0")
    assert sample(*words) is None
    drawn = pictures(place / "out")
    assert drawn.shape == (3, 24, 32)
    assert (drawn[0][4:20, 4:28] == drawn[1][4:20, 4:28]).all()
    assert sample(*words, "--place", "0,1", "--out", "corner") is None
    assert (pictures(place / "corner")[0][:16, 8:] == drawn[0][4:20, 4:28]).all()


@pytest.mark.slow
def test_presets_reproduce_images(place):
    assert sample("--preset", "pretty", "--top-k", "7", "--save-preset", "mine") is None
    assert sample("--preset", "mine") is None, "the same images, by another name"
    described = json.loads((place / "run" / "model.json").read_text())
    assert described["made"] == {
        "step": 7,
        "presets": {"mine": {"temperature": 0.9, "top_k": 7, "top_p": 0.95, "guidance": 2.0}},
    }
    assert sample("--preset", "mine", "--temperature", "1.0", "--out", "other") is None
    assert (cards(place / "other")[0]["temperature"], cards(place / "other")[0]["top_k"]) == (1.0, 7)
    assert sample("--steps", "8", "--save-preset", "refused", "--out", "never") == 2
    assert "refused" not in (place / "run" / "model.json").read_text()


def test_several_processes_match_one(place, monkeypatch, capsys):
    assert sample("--count", "7", "--out", "alone") is None
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank, new in ((2, 2), (0, 3)):
        monkeypatch.setenv("RANK", str(rank))
        assert sample("--count", "7") is None
        assert f"process {rank} of 3 is done ({new} new)" in capsys.readouterr().out
    assert not (place / "out.png").exists()
    monkeypatch.setenv("RANK", "1")
    assert sample("--count", "7") is None
    assert "7 images in out (2 new)" in capsys.readouterr().out
    assert (place / "out.png").read_bytes() == (place / "alone.png").read_bytes()
    assert abs(pictures(place / "out") - pictures(place / "alone")).max() <= 1
    assert (place / "out" / "samples.jsonl").read_bytes() == (place / "alone" / "samples.jsonl").read_bytes()


def test_swept_options_may_be_without_effect_in_a_cell(place):
    assert sample("--sweep", "guidance=1,2", "--guidance-schedule", "linear") is None
    assert len(list((place / "out").glob("*/*.png"))) == 6


def test_bf16_is_nearly_the_same_distribution(place):
    assert sample("--precision", "bf16", "--temperature", "0") is None
    assert cards(place / "out")[0]["precision"] == "bf16"
    assert pictures(place / "out").shape == (3, 16, 24)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sweep", "temprature=1,2"], "unknown option 'temprature'; did you mean 'temperature'?"),
        (["--sweep", "top_k=1,x"], "--sweep top_k=1,x: expected values as in top_k=1,2"),
        (["--sweep", "guidance=1,2", "guidance=3"], "sets guidance twice"),
        (["--sweep", "guidance=1,1"], "a value is repeated"),
        (["--sweep", "guidance=1,2", "--save-preset", "x"], "--save-preset saves one set of options"),
        (["--preset", "prety"], "unknown preset 'prety'; available: fid, pretty"),
        (["--steps", "8"], "the number of steps of Autoregressive is fixed"),
        (["--size", "256"], "invalid --size '256': expected HEIGHTxWIDTH"),
        (["--size", "0x8"], "invalid --size '0x8': expected HEIGHTxWIDTH"),
        (["--size", "18x24"], "image size 18x24 is not a multiple of the network's stride 4"),
        (["--size", "32x48", "--overlap", "1"], "overlap must be at least 0 and below 1, got 1.0"),
        (["--overlap", "0.2"], "--overlap 0.2 has no effect on a single window; add a larger --size"),
        (["--size", "16x24", "--overlap", "0.2"], "--overlap 0.2 has no effect"),
        (["--guidance-schedule", "linear"], "--guidance-schedule linear has no effect with --guidance 1.0"),
        (["--guidance-interval", "0,0.5"], "--guidance-interval 0.0,0.5 has no effect with --guidance 1.0"),
        (
            ["--guidance", "2", "--guidance-schedule", "linear", "--guidance-power", "2"],
            "--guidance-power 2.0 has no effect with --guidance-schedule linear; leave it out, or set "
            "--guidance-schedule to cosine",
        ),
        (["--preset", "pretty", "--guidance-peak", "end"], "has no effect with --guidance-schedule constant"),
        (["--temperature", "0", "--top-k", "5"], "--top-k 5 has no effect with --temperature 0.0"),
        (["--sweep", "top_k=1,2", "--guidance-power", "3"], "--guidance-power 3.0 has no effect"),
        (["--keep", "top:0.5"], "--keep and --mask require --image FILE"),
        (["--image", "picture.png"], "leaves nothing to sample; add --keep, --mask or a larger --size"),
        (["--image", "picture.png", "--keep", "up:0.5"], "invalid keep 'up:0.5'"),
        (
            ["--image", "picture.png", "--keep", "top:0.5", "--mask", "mask.png"],
            "exclude each other; leave one out",
        ),
        (["--image", "picture.png", "--mask", "small.png"], "expected those of picture.png"),
        (["--image", "picture.png", "--mask", "black.png"], "black.png has no white pixels"),
        (["--image", "picture.png", "--mask", "clear.png"], "clear.png has transparent pixels"),
        (["--grow", "2"], "--grow and --place require --image"),
        (
            ["--image", "picture.png", "--keep", "top:0.5", "--place", "0,0"],
            "--place cannot be combined with --keep or --mask",
        ),
        (
            ["--image", "picture.png", "--size", "8x24"],
            "size 8x24 is smaller than the image; use at least 16x24",
        ),
        (
            ["--image", "picture.png", "--keep", "top:0.5", "--grow", "9"],
            "no codes are left outside the mask",
        ),
        (
            ["--image", "picture.png", "--keep", "top:0.5", "--grow", "-1"],
            "grow must be at least 0 codes, got -1",
        ),
        (["--image", "missing.png", "--keep", "top:0.5"], "missing.png cannot be read"),
        (["--sweep", "guidance=1,inf"], "guidance must be at least 0, and finite, got inf"),
        (
            ["--guidance-interval", "0.9,0.1"],
            "guidance_interval must be two numbers from 0 to 1, the smaller first, got (0.9, 0.1)",
        ),
    ],
)
def test_errors_are_one_line(place, words, message, capsys):
    Image.new("L", (8, 8)).save("small.png")
    Image.new("L", (48, 32)).save("black.png")
    Image.new("LA", (48, 32)).save("clear.png")
    assert sample(*words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (place / "out").exists()


def test_invalid_sweep_is_rejected_before_sampling(place, capsys):
    assert sample("--sweep", "temperature=1", "steps=0,4") == 2
    assert "the number of steps of Autoregressive is fixed" in capsys.readouterr().err
    assert not (place / "out").exists()


def test_sweep_covers_all_combinations():
    axes = parse_sweep(["temperature=1,0.5", "top-k=3"])
    assert Sweep(axes).cells == {
        "temperature=1.0,top_k=3": {"temperature": 1.0, "top_k": 3},
        "temperature=0.5,top_k=3": {"temperature": 0.5, "top_k": 3},
    }
    assert Sweep({}).cells == {"": {}}


@pytest.mark.slow
def test_compiled_networks_use_one_batch_size(place, monkeypatch):
    """The last batch is filled up with copies, which nobody sees."""
    sizes, entered = [], []

    @contextmanager
    def compiled(model):
        entered.append(model)
        yield

    images = Series.images
    monkeypatch.setattr("genstack.sampling.series.compiled", compiled)
    monkeypatch.setattr("genstack.cli.verbs.doctor.compiler", lambda: Finding("ok", ""))
    monkeypatch.setattr(
        Series, "images", lambda self, indices: sizes.append(len(indices)) or images(self, indices)
    )
    assert sample("--count", "5", "--batch-size", "2", "--out", "plain") is None
    assert not entered and sizes == [2, 2, 1]
    sizes.clear()
    words = ("--sweep", "temperature=0.5,1.0", "--compile", "true")
    assert sample("--count", "5", "--batch-size", "2", *words) is None
    assert len(entered) == 1 and sizes == [2] * 6
    assert len(list((place / "out").rglob("*.png"))) == 10
    sizes.clear()
    assert sample("--count", "5", "--batch-size", "2", "--compile", "true", "--out", "plain") is None
    assert len(entered) == 1 and sizes == []
    plain, again = pictures(place / "plain"), pictures(place / "out" / "temperature=1.0")
    assert abs(plain - again).max() <= 1


def test_compile_without_compiler_is_rejected(capsys, monkeypatch):
    monkeypatch.setattr(
        "genstack.cli.verbs.doctor.compiler",
        lambda: Finding("warning", "no g++ for C++", "apt install g++"),
    )
    assert sample("--compile", "true") == 2
    assert "--compile needs a C++ compiler: no g++ for C++: apt install g++" in capsys.readouterr().err


def test_all_images_become_one_npz_file(place, monkeypatch, capsys):
    """Resumed, it holds the same; one process of two leaves it to the other."""
    assert not sample("--npz", "samples.npz")
    images = np.load("samples.npz")["arr_0"]
    assert images.shape == (3, 16, 24, 3)
    for index, image in enumerate(images):
        assert np.array_equal(image[..., 1], pixels(place / "out" / f"{index:05d}.png"))
    before = (place / "samples.npz").read_bytes()
    (place / "out" / "00001.png").unlink()
    assert not sample("--npz", "samples.npz")
    assert (place / "samples.npz").read_bytes() == before
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, names in (("1", set()), ("0", {"samples.npz"})):
        monkeypatch.setenv("RANK", rank)
        assert not sample("--npz", "two/samples.npz", "--out", "two/out")
        assert {file.name for file in (place / "two").glob("*.npz")} == names
    assert (place / "two" / "samples.npz").read_bytes() == before
    assert sample("--npz", "samples.zip") == 2
    assert "--npz names one .npz file" in capsys.readouterr().err
