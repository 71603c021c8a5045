"""A compressor without codes on the command line, from training to samples."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genstack.cli.main import main

pytestmark = pytest.mark.slow

VAE = """train compressor --data.source shapes --data.resolution 16,24 --data.limit 12 --data.batch_size 4
    --model.compressor Autoencoder --model.compressor.network Convolutional
    --model.compressor.network.width 8 --model.compressor.network.dim 8 --model.compressor.network.blocks 1
    --model.compressor.network.multipliers 1,2 --model.compressor.network.attention []
    --model.compressor.network.middle_attention false --trainer.max_steps 2 --trainer.accelerator cpu
    --trainer.log_every_n_steps 1 --log.images 2"""
ENDLESS = VAE.replace("max_steps 2", "max_steps -5")
KINDS = {
    "vae": "--model.compressor.quantizer Gaussian --model.compressor.quantizer.dim 3",
    "coded": "--model.compressor.quantizer FSQ",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run of a VAE, one of a coded compressor, and two pictures."""
    folder = tmp_path_factory.mktemp("vae")
    for name, kind in KINDS.items():
        assert main([*VAE.split(), *kind.split(), "--name", name, "--runs", str(folder)]) is None
    for name in ("a", "b"):
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (30, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place)


def test_vae_run_has_a_layout_of_latents(place):
    told = json.loads((place / "vae" / "model.json").read_text())
    assert told["layout"]["class"] == "LatentLayout" and told["layout"]["grids"] == [[8, 12]]
    assert set(told["made"]["measured"]) >= {"val/psnr", "val/rate", "val/active"}
    assert "val/usage" not in told["made"]["measured"]
    assert json.loads((place / "coded" / "model.json").read_text())["layout"]["grids"] == [[8, 12]]


def test_samples_come_from_the_standard_normal(place, capsys):
    words = ["vae", "--seed", "3", "--device", "cpu"]
    assert main(["sample", *words, "--count", "3", "--out", "samples"]) is None
    assert main(["sample", *words, "--count", "5", "--out", "again", "--batch-size", "2"]) is None
    one, other = (np.array(Image.open(place / name / "00002.png"), int) for name in ("samples", "again"))
    assert one.shape == (16, 24, 3)
    assert abs(one - other).max() <= 1
    assert not (one == np.array(Image.open(place / "samples" / "00001.png"))).all()
    assert main(["sample", "vae", "--classes", "circle", "--out", "never"]) == 2
    assert main(["sample", "vae", "--top-k", "3", "--out", "never"]) == 2
    assert "only supports temperature" in capsys.readouterr().err
    assert not list(place.glob("never/*.png"))


@pytest.mark.parametrize("run", KINDS)
def test_interpolate_writes_a_sheet(run, place, capsys):
    out = f"{run}.png"
    assert (
        main(["interpolate", run, "a.png", "b.png", "--count", "5", "--out", out, "--device", "cpu"]) is None
    )
    assert "5 images from a.png to b.png" in capsys.readouterr().out
    with Image.open(place / out) as sheet:
        assert sheet.width > 5 * 24


def test_vae_reconstructs_images(place):
    assert main(["reconstruct", "vae", "--count", "2", "--out", "pairs.png", "--device", "cpu"]) is None


def test_reconstruct_reads_a_whole_source(place, capsys):
    (place / "named").mkdir()
    for name in ("a", "b"):
        Image.open(f"{name}.png").save(place / "named" / f"{name}.png")
    words = ["reconstruct", "coded", "--source", "named", "--out", "named.png", "--device", "cpu"]
    assert main(words) is None
    assert "over 2 images" in capsys.readouterr().out
    assert main([*words, "--size", "128x160"]) is None
    with Image.open(place / "named.png") as sheet:
        assert sheet.width > 4 * 160
    assert main([*words, "--size", "128"]) == main([*words[:2], "--size", "128x160"]) == 2
    assert "expected HEIGHTxWIDTH" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["train", "prior", "--compressor", "vae", "--model.prior", "Autoregressive"],
            "Autoregressive cannot model latents of 8x12, 3 channels; use the prior FlowMatching",
        ),
        (["interpolate", "vae", "a.png", "b.png", "--count", "1"], "count must be at least 2"),
        (["interpolate", "vae", "a.png", "none.png"], "none.png"),
        (["sample", "coded"], "is a compressor; train a prior on it"),
        ([*ENDLESS.split(), "--model.compressor.quantizer", "FSQ", "--runs", "none"], "max_steps -5"),
    ],
)
def test_vae_errors_are_one_line(words, message, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(Path("none").glob("*")), "nothing is left behind"
