"""Transformers of IBQ and Open-MAGVIT2 against SEED-Voken's own code (see `tests/golden/README.md`)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import genstack
from genstack.checkpoints.foreign import read
from genstack.checkpoints.import_options import ImportOptions
from genstack.checkpoints.published import load
from genstack.errors import UserError
from genstack.prior import SamplingOptions, image_seeds
from genstack.prior.factorized import Factorized, split_parts

GOLDEN = Path(__file__).parents[1] / "golden"
CLOSE = {"atol": 5e-5, "rtol": 1e-4}


def golden(name):
    """Results of the project's own code."""
    arrays = np.load(GOLDEN / f"{name}.npz")
    return {key: torch.from_numpy(array) for key, array in arrays.items()}


def compare_greedy(model, expected, guidances):
    """Compare greedy codes, by the name of their result and with its guidance."""
    for name, guidance in guidances.items():
        options = SamplingOptions(temperature=0.0, guidance=guidance)
        found = model.prior.sample(expected["condition"], options, image_seeds(0, range(2)))
        assert torch.equal(found, expected[name])


def drop_tokenizer(file):
    """Keep the transformer alone."""
    state = torch.load(file, weights_only=True)["state_dict"]
    torch.save({name: value for name, value in state.items() if name.startswith("transformer.")}, file)


@pytest.fixture
def file(tmp_path):
    """A checkpoint of Lightning with both stages; the tokenizer's tensors have the names of a VQGAN."""
    stages = {"transformer.": "ibq_transformer", "first_stage_model.": "taming_vqgan"}
    state = {
        prefix + name: value
        for prefix, stage in stages.items()
        for name, value in load_file(GOLDEN / f"{stage}.safetensors").items()
    }
    torch.save({"state_dict": state, "global_step": 7}, tmp_path / "ibq.ckpt")
    return tmp_path / "ibq.ckpt"


@torch.no_grad()
def test_transformers_of_ibq(file):
    (file.parent / "ibq.ckpt.yaml").write_text("heads: 4\nresolution: 16")
    model = genstack.load(file)
    expected = golden("ibq_transformer")
    codes, labels = expected["codes"], expected["condition"]
    assert (model.layout.length, len(model.classes)) == (codes.shape[1], 10)
    torch.testing.assert_close(model.prior.logits(codes, labels), expected["logits"], **CLOSE)
    null = model.prior.logits(codes, model.condition.null(labels))
    torch.testing.assert_close(null, expected["logits_null"], **CLOSE)
    compare_greedy(model, expected, {"greedy_codes": 1.0, "greedy_codes_cfg4": 4.0})


def test_heads_and_a_missing_tokenizer_are_asked_for(file):
    with pytest.raises(UserError, match="give it by --heads"):
        load(file)
    drop_tokenizer(file)
    with pytest.raises(UserError, match="does not hold its tokenizer"):
        load(file, ImportOptions(heads=4))
    taming = str(GOLDEN / "taming_vqgan.safetensors")
    assert load(file, ImportOptions(heads=4, compressor=taming, resolution="16")).layout.length == 16


@pytest.fixture
def open_magvit2(tmp_path):
    """A checkpoint of Lightning with both stages, as the project publishes it."""
    tokenizer = read(GOLDEN / "open_magvit2.ckpt").tensors()
    state = {f"first_stage_model.{name}": value for name, value in tokenizer.items() if "ema" not in name}
    transformer = load_file(GOLDEN / "open_magvit2_transformer.safetensors")
    state |= {f"transformer.{name}": value for name, value in transformer.items()}
    torch.save({"state_dict": state, "global_step": 7}, tmp_path / "AR_256_B.ckpt")
    return tmp_path / "AR_256_B.ckpt"


@torch.no_grad()
def test_transformers_of_open_magvit2(open_magvit2):
    """Codes of 16 x 64 values: logits of both parts, teacher forced, and greedy codes."""
    (open_magvit2.parent / "AR_256_B.ckpt.yaml").write_text("heads: 4\nresolution: 8")
    model = genstack.load(open_magvit2)
    expected = golden("open_magvit2_transformer")
    codes, labels = expected["codes"], expected["condition"]
    assert (model.layout.length, model.layout.codebook_size, len(model.classes)) == (16, 1024, 10)
    assert model.prior.symbols == Factorized((16, 64), layers=2)
    for name, condition in (("logits", labels), ("logits_null", model.condition.null(labels))):
        features = model.prior.logits(codes, condition)
        parts = split_parts(codes.flatten(), (16, 64))
        found = model.prior.distribution(features.flatten(0, 1), parts[:, :1])
        for logits, part in zip(found, ("pre", "post"), strict=True):
            torch.testing.assert_close(logits.unflatten(0, codes.shape), expected[f"{name}_{part}"], **CLOSE)
    compare_greedy(model, expected, {"greedy_codes": 1.0, "greedy_codes_cfg2.5": 2.5})


def test_parts_of_codes_must_be_those_of_the_tokenizer(open_magvit2):
    with pytest.raises(UserError, match="give it by --heads"):
        load(open_magvit2)
    drop_tokenizer(open_magvit2)
    taming = str(GOLDEN / "taming_vqgan.safetensors")
    with pytest.raises(UserError, match="it reads 16 codes of 1024, but the compressor has 16 of"):
        load(open_magvit2, ImportOptions(heads=4, compressor=taming, resolution="16"))
    other = str(GOLDEN / "open_magvit2.ckpt")
    options = ImportOptions(heads=4, compressor=other, resolution="12")
    assert load(open_magvit2, options).layout.length == 36
