"""IBQ's transformer against SEED-Voken's own code (made as `tests/golden/README.md` says)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import genstack
from genstack.checkpoints.import_options import ImportOptions
from genstack.checkpoints.published import load
from genstack.errors import UserError
from genstack.prior import SamplingOptions, image_seeds

GOLDEN = Path(__file__).parents[1] / "golden"
CLOSE = {"atol": 5e-5, "rtol": 1e-4}


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
    expected = {
        name: torch.from_numpy(array) for name, array in np.load(GOLDEN / "ibq_transformer.npz").items()
    }
    codes, labels = expected["codes"], expected["condition"]
    assert (model.layout.length, len(model.classes)) == (codes.shape[1], 10)
    torch.testing.assert_close(model.prior.logits(codes, labels), expected["logits"], **CLOSE)
    null = model.prior.logits(codes, model.condition.null(labels))
    torch.testing.assert_close(null, expected["logits_null"], **CLOSE)
    for name, guidance in (("greedy_codes", 1.0), ("greedy_codes_cfg4", 4.0)):
        options = SamplingOptions(temperature=0.0, guidance=guidance)
        assert torch.equal(model.prior.sample(labels, options, image_seeds(0, range(2))), expected[name])


def test_heads_and_a_missing_tokenizer_are_asked_for(file):
    with pytest.raises(UserError, match="give it by --heads"):
        load(file)
    state = torch.load(file, weights_only=True)["state_dict"]
    torch.save({name: value for name, value in state.items() if name.startswith("transformer.")}, file)
    with pytest.raises(UserError, match="does not hold its tokenizer"):
        load(file, ImportOptions(heads=4))
    taming = str(GOLDEN / "taming_vqgan.safetensors")
    assert load(file, ImportOptions(heads=4, compressor=taming, resolution="16")).layout.length == 16
