"""Conditions with a frozen network: training, resuming, sampling and moving by the command line."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from genstack.checkpoints import model_file
from genstack.cli.main import main
from genstack.compressor import Autoencoder, Strided
from genstack.compressor.quantizers import VectorQuantizer
from genstack.conditions import text_encoder as encoders
from genstack.data.images import Preprocessing
from genstack.model import Model

pytestmark = pytest.mark.slow

TINY = [
    *("--config", "configs/prior/autoregressive.yaml", "--data.resolution", "16", "--data.limit", "24"),
    *("--data.batch_size", "4", "--trainer.validate_every", "2", "--log.images", "2"),
    *("--model.prior.backbone.width", "16", "--model.prior.backbone.depth", "1"),
    *("--model.prior.backbone.heads", "2"),
]


def compressor(folder, size):
    """A compressor's run that learned nothing."""
    made = Autoencoder(3, Strided(8, 4, 1, 8), VectorQuantizer(size, 4)).eval()
    model_file.save(Model(made, Preprocessing(3, 16, 16)), folder)
    return str(folder)


def train(tmp_path, *words, steps=2):
    run = ["train", "prior", "--compressor", compressor(tmp_path / "pictures", 16), *TINY]
    return main([*run, "--runs", str(tmp_path), "--name", "prior", "--trainer.max_steps", str(steps), *words])


def told(folder):
    lines = (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_captions_with_a_frozen_text_encoder(tmp_path, text_encoder, capsys, monkeypatch):
    encoder = shutil.copytree(text_encoder, tmp_path / "encoder")
    words = ["--config", "configs/prior/encoded_captions.yaml", "--model.condition.encoder", str(encoder)]
    assert not train(tmp_path, *words, "--data.source", "shapes:pairs")
    run = tmp_path / "prior"
    condition = model_file.load(run).condition
    assert condition.weights_hash and condition.dim == 24 and condition.precision == "bf16"
    assert {name.split(".")[0] for name in load_file(run / "model.safetensors")} == {"compressor", "prior"}
    sample = ["sample", str(run), "--count", "2", "--caption", "a red circle", "--guidance", "2"]
    assert not main([*sample, "--out", str(tmp_path / "samples")])
    assert [card["caption"] for card in told(tmp_path / "samples")] == ["a red circle"] * 2
    encoders.load_encoder.cache_clear()
    moved = encoder.rename(tmp_path / "elsewhere")
    capsys.readouterr()
    assert main([*sample, "--out", str(tmp_path / "more")]) == 2
    assert "no text encoder found in" in capsys.readouterr().err
    monkeypatch.setenv("GENSTACK_TEXT_ENCODER", str(moved))
    assert not main([*sample, "--out", str(tmp_path / "more")])
    for name in ("00000.png", "00001.png"):
        with Image.open(tmp_path / "samples" / name) as one, Image.open(tmp_path / "more" / name) as other:
            assert np.array_equal(np.asarray(one), np.asarray(other))


def test_run_contains_the_compressor_of_condition_images(tmp_path, capsys):
    """Both compressors' runs may go: training continues, and sampling works, from the prior's run alone."""
    maps = compressor(tmp_path / "maps", 7)
    words = ["--config", "configs/prior/image_codes.yaml", "--model.condition.compressor", maps]
    assert not train(tmp_path, *words, "--data.source", "shapes")
    run, pictures = tmp_path / "prior", tmp_path / "pictures"
    network = model_file.load(tmp_path / "maps").compressor
    kept = model_file.load(run)
    assert kept.condition.length == 16 and kept.condition.layout.codebook_size == 7
    for name, value in network.state_dict().items():
        assert torch.equal(kept.condition.network.state_dict()[name], value), name
    shutil.rmtree(tmp_path / "maps")
    shutil.rmtree(pictures)
    settings = (run / "config.yaml").read_text(encoding="utf-8")
    (run / "config.yaml").write_text(settings.replace("max_steps: 2\n", "max_steps: 3\n"), encoding="utf-8")
    assert not main(["train", "resume", str(run)])
    assert model_file.load(run).metadata["step"] == 3
    (tmp_path / "asked").mkdir()
    for number in range(2):
        Image.fromarray(np.full((20, 20, 3), 100 * number, np.uint8)).save(tmp_path / f"asked/{number}.png")
    sample = ["sample", str(run), "--count", "4", "--condition-images", str(tmp_path / "asked")]
    assert not main([*sample, "--guidance", "1.5", "--out", str(tmp_path / "samples")])
    names = [card["condition_image"] for card in told(tmp_path / "samples")]
    assert names == ["0.png", "1.png"] * 2
    # Another prior can begin with its weights, and takes the compressor along.
    flags = ["--init", str(run), "--compressor", str(run), "--data.source", "shapes", "--name", "next"]
    begun = [*TINY[2:6], *flags, "--data.condition_images", "own"]
    assert not main(["train", "prior", *begun, "--runs", str(tmp_path), "--trainer.max_steps", "1"])
    state = model_file.load(tmp_path / "next").condition.network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())


def test_missing_condition_compressor_is_requested(tmp_path, capsys):
    assert train(tmp_path, "--config", "configs/prior/image_codes.yaml", "--data.source", "shapes") == 2
    assert "set model.condition.compressor to its run" in capsys.readouterr().err
