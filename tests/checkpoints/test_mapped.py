"""Mapped files: an autoencoder inside a much larger file takes little more memory than its own tensors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from genstack.checkpoints.mapped import drop_pages, map_safetensors

GOLDEN = Path(__file__).parents[1] / "golden"
#: Loads a small file, for what is imported late, then each large one in a process of its own; prints how much
#: memory grew over what is kept.
SCRIPT = """
import os
import sys
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
import torch
from genstack.checkpoints.published import load

torch.set_num_threads(1)  # a forked process would wait for threads that only its parent has
load(Path(sys.argv[1]))
for place in sys.argv[2:]:
    if os.fork() == 0:
        try:
            before = getrusage(RUSAGE_SELF).ru_maxrss
            model = load(Path(place))
            kept = sum(value.nbytes for value in model.compressor.state_dict().values())
            print((getrusage(RUSAGE_SELF).ru_maxrss - before) * 1024 / kept, flush=True)
        finally:
            os._exit(0)
    os.wait()
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
def test_memory_stays_below_twice_the_kept_tensors(tmp_path):
    """Of files of safetensors and of torch, and of a folder of shards."""
    state = load_file(GOLDEN / "taming_vqgan.safetensors")
    state["quantize.embedding.weight"] = torch.ones(700_000, 8)
    state = {f"first_stage_model.{name}": value for name, value in state.items()}
    state["diffusion.out.weight"] = torch.zeros(120_000_000, dtype=torch.uint8)
    places = [tmp_path / name for name in ("model.safetensors", "model.ckpt", "folder")]
    save_file(state, places[0])
    torch.save({"state_dict": state}, places[1])
    places[2].mkdir()
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    shards = {name: names[number % 2] for number, name in enumerate(sorted(state))}
    for file in names:
        save_file({name: state[name] for name in state if shards[name] == file}, places[2] / file)
    (places[2] / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    words = [sys.executable, "-c", SCRIPT, str(GOLDEN / "taming_vqgan.safetensors"), *map(str, places)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    grown = [float(line) for line in done.stdout.split()]
    assert len(grown) == 3 and max(grown) < 2, done.stderr
