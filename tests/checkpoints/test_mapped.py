"""Mapped files: an autoencoder inside a much larger file takes little more memory than its own tensors."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from genstack.checkpoints.mapped import drop_pages, map_safetensors

GOLDEN = Path(__file__).parents[1] / "golden"
#: Loads a small file, for what is imported late, then a large one; prints the growth over what is kept.
SCRIPT = """
import sys
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from genstack.checkpoints.published import load

load(Path(sys.argv[1]))
before = getrusage(RUSAGE_SELF).ru_maxrss
model = load(Path(sys.argv[2]))
kept = sum(value.nbytes for value in model.compressor.state_dict().values())
print((getrusage(RUSAGE_SELF).ru_maxrss - before) * 1024 / kept)
"""


def test_tensors_of_safetensors_are_those_of_the_library(tmp_path):
    state = {"a": torch.randn(3, 5), "b": torch.arange(7, dtype=torch.int16), "none": torch.empty(0, 4)}
    state |= {"half": torch.randn(9).bfloat16(), "scalar": torch.tensor(2.5)}
    save_file(state, tmp_path / "file.safetensors", {"by": "test"})
    found, expected = map_safetensors(tmp_path / "file.safetensors"), load_file(tmp_path / "file.safetensors")
    assert found.keys() == expected.keys()
    assert all(
        torch.equal(found[name], value) and found[name].dtype == value.dtype
        for name, value in expected.items()
    )


def test_dropped_pages_are_read_again(tmp_path):
    """A tensor in memory of its own is left alone."""
    state = {"a": torch.randn(100_000)}
    save_file(state, tmp_path / "file.safetensors")
    found = map_safetensors(tmp_path / "file.safetensors")["a"]
    drop_pages(found)
    drop_pages(state["a"])
    assert torch.equal(found, state["a"])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted as on Linux")
@pytest.mark.parametrize("kind", ["safetensors", "pickle", "shards", "pickled shards", "janus"])
def test_memory_stays_below_twice_the_kept_tensors(kind, tmp_path, start):
    """Janus is in bfloat16, with the tokenizer beside a language model, all in shards."""
    if kind == "janus":
        parts = [load_file(file) for file in sorted((GOLDEN / "janus_vq").glob("*.safetensors"))]
        state = {name: value for part in parts for name, value in part.items()}
        state["gen_vision_model.quantize.embedding.weight"] = torch.ones(900_000, 6).bfloat16()
    else:
        state = load_file(GOLDEN / "taming_vqgan.safetensors")
        state["quantize.embedding.weight"] = torch.ones(700_000, 8)
        state = {f"first_stage_model.{name}": value for name, value in state.items()}
    state["language_model.out.weight"] = torch.zeros(60_000_000, dtype=torch.uint8)
    place = tmp_path / "model.safetensors"
    if kind == "pickle":
        place = tmp_path / "model.ckpt"
        torch.save({"state_dict": state}, place)
    elif kind == "safetensors":
        save_file(state, place)
    else:
        place = tmp_path / "folder"
        place.mkdir()
        pickled = kind == "pickled shards"
        stem, ending = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
        names = [f"{stem}-0000{number}-of-00002.{ending}" for number in (1, 2)]
        shards = {name: names[number % 2] for number, name in enumerate(sorted(state))}
        for file in names:
            part = {name: state[name] for name in state if shards[name] == file}
            (torch.save if pickled else save_file)(part, place / file)
        (place / f"{stem}.{ending}.index.json").write_text(json.dumps({"weight_map": shards}))
    (tmp_path / "growth.py").write_text(SCRIPT)
    words = [str(tmp_path / "growth.py"), str(GOLDEN / "taming_vqgan.safetensors"), str(place)]
    status, printed, errors = start(*words).finish()
    assert status == 0, errors
    assert 0.5 < float(printed) < 2
