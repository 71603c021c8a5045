"""Priors over bits by the command line: flips that they learn to correct, and codes of many bits."""

import json

import pytest
import torch
from safetensors.torch import load_file

from genstack.cli.main import main
from genstack.training.prior import PriorTraining

pytestmark = pytest.mark.slow

TRAINER = "--trainer.max_steps 4 --trainer.accelerator cpu --trainer.log_every_n_steps 1 --log.images 2"
COMPRESSOR = f"""train compressor {TRAINER} --data.source shapes --data.resolution 16,24 --data.limit 12
    --data.validation 0.25 --data.batch_size 4 --model.compressor Autoencoder
    --model.compressor.network Convolutional --model.compressor.network.width 8
    --model.compressor.network.dim 8 --model.compressor.network.blocks 1
    --model.compressor.network.multipliers 1,2 --model.compressor.network.attention []
    --model.compressor.network.middle_attention false --model.compressor.quantizer MultiScaleResidual
    --model.compressor.quantizer.scales [1,2,4]"""
PRIOR = f"""train prior {TRAINER} --model.prior NextScale --model.prior.backbone.width 16
    --model.prior.backbone.depth 1 --model.prior.backbone.heads 2 --model.prior.symbols Bits
    --model.condition ClassLabels --model.condition.dropout 0.2 --compressor scales --runs ."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flips")
    assert main([*COMPRESSOR.split(), "--name", "scales", "--runs", str(folder)]) is None
    return folder


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place)


def train(name, flips, *flags):
    return main([*PRIOR.split(), "--name", name, "--model.prior.bit_flips", flips, *flags])


def losses(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["train/loss"] for line in lines if "train/loss" in line]


def test_a_resumed_run_is_the_same_bit_for_bit(place, monkeypatch):
    class PowerCut(BaseException):
        """Nothing catches it."""

    def cut(self, *arguments):
        if self.global_step == 2:
            raise PowerCut
        return step(self, *arguments)

    step = PriorTraining.training_step
    assert train("flipped", "0.3") is None and train("plain", "0") is None
    with monkeypatch.context() as patch:
        patch.setattr(PriorTraining, "training_step", cut)
        with pytest.raises(PowerCut):
            train("halves", "0.3", "--trainer.checkpoint_minutes", "0")
    assert main(["train", "resume", "halves"]) is None
    whole, halves, plain = (
        load_file(place / name / "model.safetensors") for name in ("flipped", "halves", "plain")
    )
    assert all(torch.equal(tensor, halves[name]) for name, tensor in whole.items())
    assert any(not torch.equal(tensor, plain[name]) for name, tensor in whole.items())
    assert losses(place / "flipped") == losses(place / "halves") != losses(place / "plain")


def test_archives_are_refused_in_one_line(place, capsys):
    assert main(["encode", "scales", "codes", "--device", "cpu"]) is None
    assert train("archived", "0", "--data.source", "codes") is None
    capsys.readouterr()
    assert train("refused", "0.3", "--data.source", "codes") == 2
    error = capsys.readouterr().err
    assert "bit_flips needs images" in error and "give the images as --data.source" in error
    assert error.count("\n") == 1 and not (place / "refused").exists()


@pytest.mark.parametrize(("bits", "depth"), [(32, 1), (62, 1), (64, 2)])
def test_codes_of_many_bits_are_saved_encoded_and_sampled(bits, depth, place, capsys):
    """Runs and archives of codes without a table; the prior learns the same from either."""
    name = f"bits{bits}"
    words = f"--model.compressor.quantizer.quantizer BSQ --model.compressor.quantizer.quantizer.bits {bits}"
    words += f" --model.compressor.quantizer.quantizer.depth {depth}"
    assert main([*COMPRESSOR.split(), *words.split(), "--name", name, "--runs", "."]) is None
    assert main(["encode", name, f"{name}-codes", "--device", "cpu"]) is None
    learn = PRIOR.replace("scales", name).split()
    assert main([*learn, "--name", f"{name}-prior"]) is None
    assert main([*learn, "--name", f"{name}-archived", "--data.source", f"{name}-codes"]) is None
    assert losses(place / f"{name}-prior") == losses(place / f"{name}-archived")
    words = ["sample", f"{name}-prior", "--device", "cpu", "--count", "2", "--out", f"{name}-samples"]
    assert main([*words, "--guidance", "2", "--precision", "bf16"]) is None
    assert len(list((place / f"{name}-samples").glob("*.png"))) == 2
    soft = [word if word != "Bits" else "Softmax" for word in learn]
    capsys.readouterr()
    assert main([*soft, "--name", "never"]) == 2
    error = capsys.readouterr().err
    assert "is too large, the limit is 16777216; use a prior with symbols Bits" in error
    assert error.count("\n") == 1
